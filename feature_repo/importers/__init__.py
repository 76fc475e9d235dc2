"""Importers: history from files into the archive, every row accounted for.

`run` is the way in. A source module (`complete_journey`, `tabular`) converts
its rows to lines, `lines` cleans them, `assemble` makes events of them, `publish` writes them.
Not here: live events, which come in over HTTP, and the archive's own format.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from pathlib import Path

import pandas as pd

from feature_repo.archive.catalogue import write_catalogue
from feature_repo.archive.currency import Money, check
from feature_repo.erasure.raw_ids import RawIds
from feature_repo.errors import InvalidSourceError
from feature_repo.events.minimisation import FieldPolicy
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import MAX_FUTURE_MS, iso, now_ms
from feature_repo.importers.assemble import Made, assemble
from feature_repo.importers.lines import FIELD_OF, clean
from feature_repo.importers.publish import ERASED, Publisher, check_rest, import_lock
from feature_repo.importers.rejects import Rejects
from feature_repo.importers.report import MENDS, SET_ASIDE, ImportReport, Progress, silent
from feature_repo.importers.source import Chunk, Source

__all__ = ["MENDS", "SOURCES", "ImportReport", "run"]

SOURCES = ("completejourney", "retailrocket", "taobao", "file", "export")
_STEP_EVENTS = 5_000
_ATTEMPTS = 3


def run(
    source: str,
    *,
    home: Path,
    path: Path | None = None,
    mapping: Path | None = None,
    until: datetime | None = None,
    rest: Path | None = None,
    keep_raw: bool = False,
    money: Money | None = None,
    policy: FieldPolicy | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Import one source into the archive below ``home``.

    Nothing is visible before everything is written; importing the same again adds nothing.

    Parameters
    ----------
    source
        One of `SOURCES`.
    home
        State folder.
    path
        File to read, or a folder of its parts.
    mapping
        YAML column mapping; needed for ``file``, except for NDJSON in the API's event form.
    until
        Events at or after this moment go to ``rest``, not into the archive.
    rest
        NDJSON file for the events held, in the API's event form; needed with ``until``.
    keep_raw
        Whether the rows not accepted are kept whole, user ids and all, beside their reasons.
    money
        The shop's currency, if that is set, and what others are worth.
    policy
        What is done to which fields of events before they are kept; without: nothing.
    progress
        Called with (done, total, what).

    Returns
    -------
    ImportReport
        Counts that add up to the rows read.

    Raises
    ------
    InvalidSourceError
        If the source, file, mapping or times cannot be read as stated.
    InvalidSettingError
        If amounts below ``home`` are kept in another currency than ``money`` has.
    """
    if (until is None) != (rest is None):
        raise InvalidSourceError("until and rest belong together: give both or neither")
    if until is not None and source == "export":
        raise InvalidSourceError("an export is imported whole: leave until and rest out")
    if until is not None and until.tzinfo is None:
        raise InvalidSourceError(f"until {until} has no offset: add Z or +hh:mm")
    if rest is not None:
        check_rest(rest)
    money = money or Money()
    check(home, money.currency)
    with import_lock(home) as staging:
        for attempt in range(_ATTEMPTS):
            progress(0, 0, f"reading {source}")
            opened = _open(source, home, path, mapping, keep_raw=keep_raw)
            until_ms = None if until is None else round(until.timestamp() * 1000)
            folder = staging / str(attempt)
            folder.mkdir()
            done = _import(
                opened, home, folder, until_ms, rest, money, policy or FieldPolicy(), keep_raw,
                progress,
            )  # fmt: skip
            if done is not None:
                return done
            shutil.rmtree(folder)
    raise InvalidSourceError(
        f"people were erased while {source} was imported, {_ATTEMPTS} times over: import again"
    )


def _open(
    source: str, home: Path, path: Path | None, mapping: Path | None, *, keep_raw: bool
) -> Source:
    if source not in SOURCES:
        raise InvalidSourceError(f"unknown source {source!r}: choose one of {', '.join(SOURCES)}")
    if mapping is not None and source != "file":
        raise InvalidSourceError(f"{source} has a mapping of its own: leave --mapping out")
    if source == "completejourney":
        from feature_repo.importers.complete_journey import open_source

        return open_source(path)
    from feature_repo.importers.event_lines import open_events
    from feature_repo.importers.mapping import load_mapping
    from feature_repo.importers.tabular import open_table

    if path is None:
        raise InvalidSourceError(f"{source} needs the path of its file")
    if source == "export":
        from feature_repo.importers.exported_events import open_export

        return open_export(path, Pseudonyms.load(home), latest_ms=now_ms() + MAX_FUTURE_MS)
    if source != "file":
        mapping = Path(__file__).with_name(f"{source}.yaml")
    if mapping is None:
        return open_events(path, keep_raw=keep_raw)
    return open_table(path, load_mapping(mapping), keep_raw=keep_raw)


def _import(
    source: Source,
    home: Path,
    staging: Path,
    until_ms: int | None,
    rest: Path | None,
    money: Money,
    policy: FieldPolicy,
    keep_raw: bool,
    progress: Progress,
) -> ImportReport | None:
    publisher = Publisher(home, staging, source.name, source.items, until_ms, rest, money, policy)
    raw_ids = RawIds.below(home) if keep_raw else None
    rejects = Rejects(staging / "rejects.parquet", keep_raw=keep_raw, raw_ids=raw_ids)
    counts = Counter[str]()
    rows_in = 0
    for chunk in source.chunks:
        progress(rows_in, source.total, "cleaning rows")
        publisher.take_catalogue()
        counts.update(_take(chunk, source, publisher, rejects, rows_in, progress))
        rows_in += chunk.rows
    for made in source.extras:
        refused = publisher.add(made)
        if refused not in (None, ERASED):
            raise InvalidSourceError(f"event {made[0]['id']} of {source.name}: {refused}")
    rejects.close()
    progress(rows_in, source.total, "publishing")
    rejects_file = home / "rejects" / f"{source.key}.parquet"
    files = [(rejects.path, rejects_file)]
    items = source.items()
    if items:
        staged = staging / "items.parquet"
        write_catalogue(staged, items)
        files.append((staged, home / "archive" / "items" / f"{source.key}.parquet"))
    if not publisher.finish(files, keep_raw=keep_raw):
        return None
    lost = sum(counts.values())
    return ImportReport(
        source=source.name,
        rows_in=rows_in,
        accepted=rows_in - lost,
        rejected={k: n for k, n in counts.most_common() if k not in SET_ASIDE},
        set_aside={k: n for k, n in counts.most_common() if k in SET_ASIDE},
        events=publisher.events,
        events_new=publisher.events_new,
        events_held=publisher.events_held,
        rows_held=publisher.rows_held,
        amounts_set_aside=publisher.amounts_set_aside,
        users=len(publisher.users),
        items=len(publisher.items),
        catalogue=len(items),
        first=None if publisher.first_ms is None else iso(publisher.first_ms),
        last=None if publisher.last_ms is None else iso(publisher.last_ms),
        rejects_file=rejects_file,
        rest_file=rest,
    )


def _take(
    chunk: Chunk,
    source: Source,
    publisher: Publisher,
    rejects: Rejects,
    rows_before: int,
    progress: Progress,
) -> Counter[str]:
    """Clean one chunk and pass its events on; return how many rows were lost to what."""
    lost = pd.DataFrame(
        [(row, *refused) for row, refused in chunk.refused],
        columns=["source_row", "reason", "column", "detail"],
    ).assign(field=None)
    made_of_lines: Iterable[Made] = ()
    if not chunk.lines.empty:
        cleaned = clean(chunk.lines, now_ms=now_ms())
        lost = _join_lost(lost, cleaned.rejects)
        made_of_lines = assemble(cleaned.lines, source.name)
    refused = list[tuple[int, str, str]]()
    done = len(lost)
    outcomes = chain(
        ((publisher.add(made), made[1]) for made in chain(chunk.made, made_of_lines)),
        ((publisher.add_placed(*one), [row]) for row, one in chunk.placed),
    )
    for number, (why, rows) in enumerate(outcomes):
        if why is not None:
            reason, _, detail = why.partition("/")
            refused += [(row, reason, detail) for row in rows]
        done += len(rows)
        if number % _STEP_EVENTS == 0:
            progress(rows_before + done, source.total, "rows to events")
    more = pd.DataFrame(refused, columns=["source_row", "reason", "detail"])
    lost = _join_lost(lost, more.assign(field=more["reason"].map(FIELD_OF)))
    lost["source_row"] = lost["source_row"].astype("int64")
    lost["kind"] = [("set_aside" if r in SET_ASIDE else "rejected") for r in lost["reason"]]
    columns = lost["field"].map(lambda field: _column(field, source), na_action="ignore")
    lost["column"] = lost["column"].where(lost["column"].notna(), columns)
    rejects.add(lost.sort_values("source_row"), chunk.raw)
    return Counter(lost["reason"].tolist())


def _column(field: str, source: Source) -> str:
    if field == "user_id" and field not in source.columns:
        field = "anonymous_id" if "anonymous_id" in source.columns else field
    return source.columns.get(field, field)


def _join_lost(lost: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([lost.astype(object), more.astype(object)], ignore_index=True)
