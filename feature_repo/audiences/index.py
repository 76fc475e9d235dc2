"""The archive and the feature views in memory, laid out so that a rule is answered at once.

An index is a picture of the archive at the moment it was made; a newer one is made beside it
(`services.audiences.index`). It reads only, and everything in it can be made again. Belongs here:
loading and running. What the tables hold is `tables`', what is asked of them `compiler`'s.
"""

import time
import weakref
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Final, Self

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.archive import valid_events
from feature_repo.archive.event_archive import SCHEMA, Archive
from feature_repo.archive.query_bounds import SpillFolder, run_until_deadline
from feature_repo.audiences import consents, tables
from feature_repo.audiences.denials import find_denying
from feature_repo.errors import PortraitError
from feature_repo.features.catalogue import USER_VIEWS
from feature_repo.features.snapshots import schema as feature_schema
from feature_repo.user_profile.purposes import DEFAULTS

THREADS: Final = 2

PROPENSITIES: Final = pa.schema(
    [("user", pa.string()), ("name", pa.string()), ("value", pa.float64()),
     ("as_of_ms", pa.int64())]
)  # fmt: skip
"""Columns of ``home/audiences/chances.parquet``: what a model says of users."""

CLUSTERS: Final = pa.schema(
    [("user", pa.string()), ("event_timestamp", pa.timestamp("us", tz="UTC")),
     ("created", pa.timestamp("us", tz="UTC")), ("cluster", pa.int32())]
)  # fmt: skip
"""Columns of ``home/audiences/clusters.parquet``: which users a model sees alike."""
WORDS: Final = b"clusters"
"""Key of that file's metadata: a JSON object, number of a cluster to what sets it apart."""


_COUNTED: Final = "audience.counted"
_NUM_UNCOUNTED: Final = "SELECT count(*) FROM facts JOIN uncounted USING (u)"
_TABLES: Final = """
SELECT table_name FROM information_schema.tables
WHERE table_catalog = 'audience' AND table_schema = 'main' ORDER BY table_name
"""


class Index:
    """What rules are answered from, as the archive stood when this was made.

    Parameters
    ----------
    home
        State folder (``PORTRAIT_HOME``); only read, but for what does not fit into memory.
    standing
        What stands of each purpose when nobody was asked.

    Attributes
    ----------
    odd
        Rows with a value that `archive.valid_events` leaves out, by column; only those that are.
    newest_ms
        Time of the newest event, epoch milliseconds; 0 of an empty archive.
    clusters
        What sets each cluster apart, in words, by its number.
    num_counted
        Users of whom figures may tell: those who do not deny ``analytics``.

    Raises
    ------
    PortraitError
        If the archive or a feature view cannot be read.
    """

    def __init__(self, home: Path, standing: Mapping[str, bool] = DEFAULTS) -> None:
        started_s = time.monotonic()
        self._schema = "audience"
        self._whole: Index | None = None
        self._connection = duckdb.connect()
        self._spilled = SpillFolder(home)
        weakref.finalize(self, self._spilled.remove)
        self._connection.execute(
            f"SET threads = {THREADS}; {self._spilled.settings()}"
            "SET enable_progress_bar = false; SET TimeZone = 'UTC'; "
            "ATTACH ':memory:' AS audience (COMPRESS); USE audience"
        )
        try:
            self._load(home, standing)
            self._count()
        except duckdb.Error as error:
            self.close()
            raise PortraitError(
                f"the archive below {home} cannot be read ({type(error).__name__}): {error}"
            ) from error
        row = self.rows("SELECT count(*), coalesce(max(time_ms), 0) FROM events", {})[0]
        self.num_events, self.newest_ms = int(row[0]), int(row[1])
        self.num_users = int(self.rows("SELECT count(*) FROM facts", {})[0][0])
        self.num_counted = self.num_users - int(self.rows(_NUM_UNCOUNTED, {})[0][0])
        later = [int(moment[0]) for moment in self.rows(tables.NEWEST, {})]
        self._until_ms = max(self.newest_ms, *later)
        self.built_s = time.monotonic() - started_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free its memory."""
        self._connection.close()
        self._spilled.remove()

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query; may be called from any thread.

        Raises
        ------
        TooCostlyError
            See `feature_repo.archive.query_bounds`.
        """
        with self._connection.cursor() as cursor, run_until_deadline(cursor):
            cursor.execute(f"USE {self._schema}")
            found: list[tuple[Any, ...]] = cursor.execute(sql, dict(parameters)).fetchall()
        return found

    def columns(self, sql: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Do what `rows` does, and return columns as numpy arrays."""
        with self._connection.cursor() as cursor, run_until_deadline(cursor):
            cursor.execute(f"USE {self._schema}")
            found: dict[str, Any] = cursor.execute(sql, dict(parameters or {})).fetchnumpy()
        return found

    def make(self, statement: str) -> None:
        """Run a statement that makes another table out of those that are there."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"USE {self._schema}")
            cursor.execute(statement)

    def without_denying(self) -> Self:
        """Return the same index without the users who deny ``analytics``: for what counts people.

        Its tables have the same names; users keep their numbers.
        """
        found = copy(self)
        found._schema, found._whole = _COUNTED, self  # noqa: SLF001 - its own class
        found.num_events = int(found.rows("SELECT count(*) FROM events", {})[0][0])
        return found

    def top_categories(self, most: int) -> list[str]:
        """Return the categories that the most users are interested in."""
        return [str(row[0]) for row in self.rows(tables.TOP_CATEGORIES, {"most": most})]

    def is_past(self, now_ms: int) -> bool:
        """Say whether anything is known of a later moment, and so must be left out."""
        return now_ms < self._until_ms

    def _load(self, home: Path, standing: Mapping[str, bool]) -> None:
        run = self._connection.execute
        parts = [str(part) for part in Archive(home / "archive" / "events").parts()]
        if parts:
            names = ", ".join("'" + part.replace("'", "''") + "'" for part in parts)
            numbered = f"list_position([{names}], filename) * 4294967296 + file_row_number AS e"
            numbers = "filename = true, file_row_number = true"
            source = f"SELECT *, {numbered} FROM read_parquet([{names}], {numbers})"
        else:
            self._copy("no_events", SCHEMA.empty_table())
            source = "SELECT *, 0::BIGINT AS e FROM no_events"
        run(f"CREATE VIEW stored_events AS {source}")
        valid_events.prepare(self._connection)
        self.odd = valid_events.count_odd(self._connection, "stored_events")
        run(f"CREATE VIEW archive_events AS {valid_events.select_sound('stored_events')}")
        run(
            'CREATE VIEW archive_lines AS SELECT "user", e, type, time, unnest(items) AS i '
            "FROM archive_events"
        )
        for statement in tables.LOAD.split(";"):
            run(statement)
        self._load_consents(standing)
        run(f"CREATE TABLE orders AS {tables.ORDERS}")
        run(f"CREATE TABLE order_days AS {tables.ORDER_DAYS} ORDER BY day")
        run(f"CREATE TABLE facts AS {tables.FACTS} ORDER BY u")
        run(tables.TOTALS)
        self._load_features(home)

    def _copy(self, name: str, table: pa.Table) -> None:
        self._connection.register("given", table)
        self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        self._connection.unregister("given")

    def _load_consents(self, standing: Mapping[str, bool]) -> None:
        granting = {"purpose": list(standing), "granted": list(standing.values())}
        self._copy("standing", pa.table(granting))
        rows = consents.statements(self._connection)
        table = pa.table(
            [list(column) for column in zip(*rows, strict=True)] or [[] for _ in consents.SCHEMA],
            schema=consents.SCHEMA,
        )
        self._copy("statements", table)
        self._connection.execute(f"CREATE TABLE consents AS {tables.CONSENTS}")
        denying = sorted(find_denying(self._connection, rows, "analytics", standing))
        self._copy("uncounted", pa.table({"u": pa.array(denying, pa.int32())}))

    def _count(self) -> None:
        """Make the tables of `without_denying`, which hide the rows of ``uncounted`` users."""
        run = self._connection.execute
        some = run("SELECT count(*) FROM uncounted").fetchone() != (0,)
        run("CREATE SCHEMA counted")
        for (name,) in run(_TABLES).fetchall():
            columns = {column[0] for column in run(f'DESCRIBE "{name}"').fetchall()}
            hidden = "WHERE u NOT IN (SELECT u FROM audience.main.uncounted)"
            run(
                f'CREATE VIEW {_COUNTED}."{name}" AS SELECT * FROM audience.main."{name}" '
                + (hidden if some and "u" in columns and name != "uncounted" else "")
            )

    def _load_features(self, home: Path) -> None:
        for view in USER_VIEWS:
            folder = home / "features" / view
            parts = sorted(str(path) for path in folder.glob("*.parquet"))
            if parts:
                names = ", ".join("'" + part.replace("'", "''") + "'" for part in parts)
                source = f"SELECT * FROM read_parquet([{names}], union_by_name = true)"
                self._connection.execute(f"CREATE VIEW feature_rows_{view} AS {source}")
            else:
                self._copy(f"feature_rows_{view}", feature_schema(view).empty_table())
            self._connection.execute(
                f"CREATE TABLE features_{view} AS {tables.latest_features(view)}"
            )
        self._load_clusters(home)
        self._load_propensities(home)
        scores = tables.scores("SELECT u, name, value FROM propensities")
        self._connection.execute(f"CREATE TABLE scores AS {scores}")

    def _load_clusters(self, home: Path) -> None:
        path = home / "audiences" / "clusters.parquet"
        table = pq.read_table(path) if path.exists() else CLUSTERS.empty_table()
        words = orjson.loads((table.schema.metadata or {}).get(WORDS, b"{}"))
        self.clusters = {int(number): str(text) for number, text in words.items()}
        self._copy("feature_rows_clusters", table)
        latest = tables.latest_features("clusters")
        self._connection.execute(f"CREATE TABLE features_clusters AS {latest}")

    def _load_propensities(self, home: Path) -> None:
        path = home / "audiences" / "chances.parquet"
        if path.exists():
            self._connection.read_parquet(str(path)).create_view("given_propensities")
        else:
            self._copy("given_propensities", PROPENSITIES.empty_table())
        self._connection.execute(
            "CREATE TABLE propensities AS SELECT u, name, value, as_of_ms FROM given_propensities "
            'JOIN users ON entity = "user" '
            "QUALIFY row_number() OVER (PARTITION BY u, name ORDER BY as_of_ms DESC) = 1"
        )
