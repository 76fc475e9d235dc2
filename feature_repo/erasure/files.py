"""Files below the state folder without the people who are erased: every place, one after another.

Each place can be gone through again at any time: a kill in between leaves every file whole, and the
next run finds what is left. Tombstones must stand first (`tombstones`). Not here: the store.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa

from feature_repo.erasure.archive_parts import erase_archive
from feature_repo.erasure.parquet_rows import count_rows, drop_owned, list_parquet, replace_file
from feature_repo.erasure.raw_ids import RawIds
from feature_repo.erasure.rejected_rows import blank_rows, count_raw_rows
from feature_repo.erasure.removal import Erased, Removal
from feature_repo.erasure.running_work import erase_spill, erase_staging, erase_training
from feature_repo.erasure.text_files import count_lines, drop_lines, list_lines, overwrite_names
from feature_repo.erasure.tombstones import alone
from feature_repo.events.pseudonyms import Pseudonyms

_MODELS_NOTE: Final = (
    "models are left: they name items by at least five events with each, since this version of two "
    "people or more; train again to leave the erased out of their weights"
)
_REPORTS_NOTE: Final = (
    "reports, plots and exported files are not looked at: who made them removes them"
)


def erase_files(home: Path, people: Erased) -> list[Removal]:
    """Remove people from every file below ``home`` and say what was found of them where.

    Parameters
    ----------
    home
        State folder (``PORTRAIT_HOME``); another one within it is left alone.
    people
        Their tombstones stand already.

    Returns
    -------
    list[Removal]
        One for each place; rows, or lines, or histories are counted.

    Raises
    ------
    OSError
        If a file cannot be written; call it again.
    """
    with alone(home):  # what was published without these tombstones is in its place now
        _sweep_drafts(home)
    return [erase(home, people) for erase in _STEPS]


def erase_tables(home: Path, entities: frozenset[str]) -> list[Removal]:
    """Remove the rows of profiles that are gone from the tables that name them by pseudonym."""
    people = Erased(entities, frozenset(), frozenset())
    return [_erase_features(home, people), _erase_audiences(home, people)]


def _sweep_drafts(home: Path) -> None:
    """Remove what killed writers of tables left; nobody writes any now."""
    for above, folders, names in os.walk(home):
        folders[:] = [f for f in folders if f not in ("archive", "store")]
        for name in names:
            if name.startswith(".") and ".parquet." in name and name.endswith(".tmp"):
                (Path(above) / name).unlink(missing_ok=True)


def _erase_archive(home: Path, people: Erased) -> Removal:
    return erase_archive(home, people.entities)


def _erase_features(home: Path, people: Erased) -> Removal:
    return _erase_tables(home, "features", list_parquet(home / "features"), people)


def _erase_audiences(home: Path, people: Erased) -> Removal:
    return _erase_tables(home, "audience_scores", list_parquet(home / "audiences"), people)


def _erase_datasets(home: Path, people: Erased) -> Removal:
    known = [home / name for name in ("archive", "audiences", "features", "rejects", "store")]
    others = (path for path in list_parquet(home) if not any(map(path.is_relative_to, known)))
    return _erase_tables(home, "datasets", others, people)


def _erase_rejects(home: Path, people: Erased) -> Removal:
    ids = _raw_ids(home, people)
    count, change = partial(count_raw_rows, ids=ids), partial(blank_rows, ids=ids)
    return _replace_tables(home, "rejects", list_parquet(home / "rejects"), count, change)


def _erase_lines(home: Path, people: Erased) -> Removal:
    ids, found = _raw_ids(home, people), 0
    for path in list_lines(home):
        rows = count_lines(path, ids)
        if rows:
            drop_lines(home, path, ids)
            found += rows
    return Removal("event_files", found, found)


def _erase_logs(home: Path, people: Erased) -> Removal:
    names = {name.encode() for name in people.entities | people.ids}
    found = sum(overwrite_names(path, names) for path in _list_logs(home)) if names else 0
    return Removal("logs", found, found, note="ids under six characters are not looked for there")


def _note_models(home: Path, people: Erased) -> Removal:
    return Removal("models", 0, 0, note=_MODELS_NOTE)


def _note_reports(home: Path, people: Erased) -> Removal:
    return Removal("reports", 0, 0, note=_REPORTS_NOTE)


_STEPS: Final[tuple[Callable[[Path, Erased], Removal], ...]] = (
    _erase_archive, erase_staging, _erase_rejects, _erase_lines, _erase_features, _erase_audiences,
    _erase_datasets, erase_training, erase_spill, _erase_logs, _note_models, _note_reports,
)  # fmt: skip


def _erase_tables(home: Path, store: str, paths: Iterable[Path], people: Erased) -> Removal:
    count = partial(count_rows, entities=people.entities)
    change = partial(drop_owned, entities=people.entities)
    return _replace_tables(home, store, paths, count, change)


def _replace_tables(
    home: Path,
    store: str,
    paths: Iterable[Path],
    count: Callable[[Path], int],
    change: Callable[[pa.Table], pa.Table],
) -> Removal:
    """Replace the tables in which there is something to change."""
    found, unread = 0, 0
    for path in paths:
        try:
            if not count(path):
                continue
            with alone(home):  # else the file might be replaced by a newer one meanwhile
                rows = count(path)
                replace_file(path, change)
                found += rows
        except FileNotFoundError:
            continue
        except pa.ArrowException:
            unread += 1
    note = f"{unread} files are no Parquet and were left: look at them" if unread else ""
    return Removal(store, found, found, note=note)


def _raw_ids(home: Path, people: Erased) -> RawIds:
    made = (home / "tenant.json").exists()
    return RawIds(people.entities, people.ids, Pseudonyms.load(home) if made else None)


def _list_logs(home: Path) -> Iterator[Path]:
    """Yield the logs below ``home``, and those of the Ray that it runs."""
    folders, told = [home / "run"], home / "run" / "folder"
    if told.is_file():
        folders.append(Path(told.read_text().partition(" ")[2].strip() or home / "run"))
    for path in chain.from_iterable(folder.rglob("*") for folder in folders):
        named = path.suffix in (".log", ".out", ".err") or ".log." in path.name
        if named and path.is_file() and not path.is_symlink():
            yield path
