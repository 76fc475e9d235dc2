"""An import after an erasure brings nobody back, and counts the rows that it leaves out."""

import tempfile
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from erasure_search import search
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_table import archived, check_conservation, import_shop, write_shop

from feature_repo import importers
from feature_repo.erasure import tombstones
from feature_repo.erasure.raw_ids import RawIds
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.importers import publish

PEOPLE = [f"shopper-of-marker-{n}@x.example" for n in range(4)]
ROWS = st.lists(
    st.tuples(st.sampled_from(PEOPLE), st.sampled_from(["view", "buy", "ping", "what"]),
              st.sampled_from(["1", "many"])),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=8)
@given(ROWS, st.sets(st.sampled_from(PEOPLE)), st.booleans())
def test_nobody_erased_is_in_what_an_import_leaves(
    drawn: list[tuple[str, str, str]], gone: set[str], keep_raw: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        rows = [[f"2020-05-01T10:00:{n:02d}Z", who, what, "A", f"o{n}", "1", price, "", ""]
                for n, (who, what, price) in enumerate(drawn)]  # fmt: skip
        table, mapping = write_shop(Path(folder), rows)
        pseudonyms = Pseudonyms.load(home)
        tombstones.add(home, map(pseudonyms.of_user, gone))
        held = home / "held.ndjson"
        report = import_shop(
            home, table, mapping, keep_raw=keep_raw, rest=held,
            until=importers.datetime.fromisoformat("2020-05-01T10:00:15Z"),
        )  # fmt: skip
        check_conservation(report)
        good = [who for who, what, price in drawn if what in ("view", "buy") and price == "1"]
        assert report.set_aside.get("erased", 0) == sum(who in gone for who in good)
        assert report.accepted == sum(who not in gone for who in good)
        assert report.users == len({who for who in good if who not in gone})
        assert search(home, gone) == []
        kept = {line["user_id"] for line in map(orjson.loads, held.open("rb"))}
        assert kept <= set(PEOPLE) - gone


def test_the_search_finds_the_rows_of_those_who_stay(tmp_path: Path) -> None:
    home = tmp_path / "home"
    table, mapping = write_shop(tmp_path, [["2020-05-01", PEOPLE[0], "what", "A", *[""] * 5]])
    report = import_shop(home, table, mapping, keep_raw=True)
    assert search(home, PEOPLE[:1]) == [f"rejects/{report.rejects_file.name}: {PEOPLE[0]}"]


@pytest.mark.parametrize("keep_raw", [True, False])
def test_who_is_erased_while_an_import_runs_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_raw: bool
) -> None:
    home = tmp_path / "home"
    rows = [["2020-05-01T10:00:00Z", who, what, "A", "", "1", "1", "", ""]
            for who in PEOPLE[:2] for what in ("view", "what")]  # fmt: skip
    table, mapping = write_shop(tmp_path, rows)
    gone = Pseudonyms.load(home).of_user(PEOPLE[0])
    real = publish.Publisher._flush

    def erase_then_flush(self: publish.Publisher) -> None:
        tombstones.add(home, [gone])
        real(self)

    monkeypatch.setattr(publish.Publisher, "_flush", erase_then_flush)
    report = import_shop(home, table, mapping, keep_raw=keep_raw)
    check_conservation(report)
    assert dict(report.set_aside) == {"erased": 1}
    assert {e.user for e in archived(home)} == {Pseudonyms.load(home).of_user(PEOPLE[1])}
    assert search(home, [PEOPLE[0]]) == []
    if keep_raw:
        kept = pq.read_table(report.rejects_file)["row"].to_pylist()
        assert [PEOPLE[1] in (row or "") for row in kept].count(True) == 1


def test_an_anonymous_id_that_was_erased_is_left_out_of_who_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    tombstones.add(home, [Pseudonyms.load(home).of_anonymous("cookie-marker-9")])
    line = {"type": "view_item", "user_id": "u", "anonymous_id": "cookie-marker-9", "id": "1"}
    body = {**line, "time": "2020-05-01T10:00:00Z", "items": [{"item_id": "A"}]}
    file = tmp_path / "events.ndjson"
    file.write_bytes(
        b"\n".join(orjson.dumps({**body, "id": str(n), "time": f"2020-05-0{n}T10:00:00Z"})
                   for n in (1, 2))
    )  # fmt: skip
    importers.run(
        "file", home=home, path=file, rest=home / "rest.ndjson",
        until=importers.datetime.fromisoformat("2020-05-02T00:00:00Z"),
    )  # fmt: skip
    assert [e.linked for e in archived(home)] == [None]
    assert search(home, ["cookie-marker-9"]) == []


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=20,
), st.integers(0, 5))  # fmt: skip
def test_an_id_is_known_wherever_it_stands(body: object, depth: int) -> None:
    pseudonyms = Pseudonyms(b"0123456789abcdef", 16)
    ids = RawIds([pseudonyms.of_user("u-4711")], (), pseudonyms)
    assert not ids.stand_in(orjson.dumps(body if _fits(body) else None).decode())
    nested: object = "u-4711"
    for n in range(depth):
        nested = [body if _fits(body) else 0, nested] if n % 2 else {"x": nested}
    assert ids.stand_in(orjson.dumps(nested).decode())


def _fits(body: object) -> bool:
    try:
        orjson.dumps(body)
    except (TypeError, ValueError):
        return False
    return True
