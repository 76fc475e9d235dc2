"""Every file below the state folder: nothing of the erased stays in it, and everybody else does."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crashes import Crash, CrashAfter
from erasure_search import search
from shop_table import archived, import_shop, write_shop

from feature_repo.archive.event_archive import write_part
from feature_repo.erasure import tombstones
from feature_repo.erasure.files import erase_files
from feature_repo.erasure.removal import Erased
from feature_repo.erasure.running_work import hold_folder
from feature_repo.erasure.text_files import list_lines
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.features import snapshots

NAMES = [f"shopper-marker-{n}@x.example" for n in range(5)]
LATE = datetime(2020, 5, 20, tzinfo=UTC)


def _fill(folder: Path) -> Path:
    """Make a state folder with everybody in every kind of file."""
    home = folder / "home"
    rows = [
        [f"2020-05-{day:02d}T10:00:00Z", who, what, "A", f"o{who}{day}", "1", "2", "", "Food/Tea"]
        for who in NAMES for what in ("view", "buy", "what") for day in (1, 8, 25)
    ]  # fmt: skip
    table, mapping = write_shop(folder, rows)
    held = home / "demo-replay.ndjson"
    import_shop(home, table, mapping, keep_raw=True, rest=held, until=LATE)
    snapshots.build(home, until=LATE)
    users = [Pseudonyms.load(home).of_user(name) for name in NAMES]
    scores = pa.table({"entity": users, "value": [0.5] * 5})
    write_part(home / "audiences" / "chances.parquet", scores)
    write_part(home / "training_set.parquet", pa.table({"user": users, "n": range(5)}))
    write_part(home / "features" / "live_state" / "rebuild-1.parquet", pa.table({"user": users}))
    for name in (".chances.parquet.01ab.tmp", ".rebuild-1/whole"):
        path = home / "features" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(home / "audiences" / "chances.parquet", path)
    _train(home, "killed", users)
    _train(home, "others", users[3:])
    staging = home / "import.staging" / "0"
    staging.mkdir(parents=True)
    (staging / "rest.ndjson").write_text(NAMES[0])
    logs = home / "run" / "logs"
    logs.mkdir(parents=True)
    (logs / "updater-1.log").write_text("".join(f'{{"user":"{u}"}}\n' for u in users))
    inner = home / "demo"
    inner.mkdir()
    (inner / "tenant.json").write_text("{}")
    write_part(inner / "training_set.parquet", pa.table({"user": ["another home's"]}))
    return home


def _train(home: Path, name: str, users: list[str]) -> None:
    run = home / "models" / f".run-{name}"
    run.mkdir(parents=True)
    np.savez(run / "arrays.npz", h_users=np.array(users, "U64"), features=np.zeros(3))


def _people(home: Path, names: list[str]) -> Erased:
    entities = frozenset(map(Pseudonyms.load(home).of_user, names))
    return Erased(entities, frozenset(names), frozenset())


def _needles(people: Erased) -> list[str]:
    return [*people.entities, *people.ids]


def _places(found: list[str]) -> set[str]:
    return {text.split("/")[0].split(": ")[0] for text in found}


EVERYWHERE = {
    "archive", "audiences", "demo-replay.ndjson", "features", "import.staging", "models", "rejects",
    "run", "training_set.parquet",
}  # fmt: skip


def _contents(home: Path, gone: Erased) -> dict[str, Any]:
    """Return what must not change: the others' rows of everything that is kept."""
    tables = {
        str(path.relative_to(home)): [
            row for row in pq.read_table(path).to_pylist()
            if row.get("user") not in gone.entities and row.get("entity") not in gone.entities
        ]
        for path in [*(home / "features").glob("[!.]*/*.parquet"), home / "training_set.parquet",
                     home / "audiences" / "chances.parquet"]
    }  # fmt: skip
    lines = [orjson.loads(line) for line in (home / "demo-replay.ndjson").open("rb")]
    return {
        **tables,
        "archive": [e for e in archived(home) if e.user not in gone.entities],
        "lines": [line for line in lines if line["user_id"] not in gone.ids],
    }


def test_nothing_of_the_erased_is_left_in_any_place(tmp_path: Path) -> None:
    home = _fill(tmp_path)
    people = _people(home, NAMES[:2])
    assert _places(search(home, _needles(people))) == EVERYWHERE
    before = _contents(home, people)
    tombstones.add(home, people.entities)
    found = {removal.store: removal for removal in erase_files(home, people)}
    stays = [text for text in search(home, _needles(people)) if "erasures/tombstones" not in text]
    assert stays == []
    assert _contents(home, people) == before
    assert all(r.found == r.removed and r.waits_until_ms is None for r in found.values())
    counts = {"archive": 2 * 4, "rejects": 2 * 3, "event_files": 2 * 2, "logs": 2}
    assert {name: found[name].removed for name in counts} == counts
    assert found["audience_scores"].removed == found["datasets"].removed == 2
    assert found["training"].removed == 2
    assert (home / "models" / ".run-others").exists()
    assert (home / "demo" / "training_set.parquet").exists()
    rejects = pq.read_table(next((home / "rejects").glob("*.parquet")))
    assert len(rejects) == 15  # numbers and reasons stay
    assert rejects["reason"].null_count == 0
    again = {removal.store: removal for removal in erase_files(home, people)}
    assert {removal.found for removal in again.values()} == {0}
    assert _contents(home, people) == before


def test_nothing_is_written_when_nobody_is_erased(tmp_path: Path) -> None:
    home = _fill(tmp_path)
    people = _people(home, ["shopper-marker-9"])
    before = {path: path.stat().st_ino for path in home.rglob("*.parquet")}
    assert {removal.removed for removal in erase_files(home, people)} <= {0, 1}  # the staging
    after = {path: path.stat().st_ino for path in home.rglob("*.parquet")}
    assert before == after


def test_files_that_are_the_services_own_are_no_event_files(tmp_path: Path) -> None:
    for name in ("audit/1.ndjson", "erasures/1.json", "held", "some/held.ndjson", "run/x"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(orjson.dumps({"type": "view_item", "user_id": NAMES[0]}) + b"\n")
    (tmp_path / "other.json").write_text('{"key": 1}')
    found = {str(path.relative_to(tmp_path)) for path in list_lines(tmp_path)}
    assert found == {"held", "some/held.ndjson"}


def test_what_is_in_use_waits_and_the_receipt_says_so(tmp_path: Path) -> None:
    home = _fill(tmp_path)
    people = _people(home, NAMES[:1])
    run = home / "models" / ".run-killed"
    with hold_folder(home / "import.lock"), hold_folder(run):
        found = {removal.store: removal for removal in erase_files(home, people)}
        for store in ("import", "training"):
            assert found[store].removed == 0
            assert found[store].waits_until_ms is not None
            assert "when" in found[store].note
        assert run.exists()
        assert _places(search(home, _needles(people))) == {"import.staging", "models"}
    erase_files(home, people)
    assert search(home, _needles(people)) == []


STEPS = [23, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.parametrize("every", STEPS)
def test_an_erasure_of_files_that_dies_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    (tmp_path / "filled").mkdir()
    filled = _fill(tmp_path / "filled")
    people = _people(filled, NAMES[:2])
    expected = _contents(filled, people)
    for at in range(0, 1000, every):
        home = tmp_path / str(at)
        shutil.copytree(filled, home, symlinks=True)
        with monkeypatch.context() as patch:
            CrashAfter(at).over_files(patch)
            try:
                erase_files(home, people)
                ended = True
            except Crash:
                ended = False
        assert _contents(home, people) == expected
        erase_files(home, people)
        assert search(home, _needles(people)) == []
        assert _contents(home, people) == expected
        shutil.rmtree(home)
        if ended:
            assert at > 20
            return
    pytest.fail("never came to an end")
