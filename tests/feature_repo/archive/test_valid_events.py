"""One odd record in an archive stops no answer, and what is odd in it counts for nothing."""

import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.analytics import affinities, drift, funnel, habits, retention, rfm, trends
from feature_repo.analytics.clusters import describe
from feature_repo.analytics.cube import Cube
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences.index import Index
from feature_repo.events import time_zones
from feature_repo.events.fields import LATEST_MS, check_tz
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots
from feature_repo.features.catalogue import BATCH_VIEWS
from feature_repo.user_profile import activity, explicit
from tests.feature_repo import shop_log

END = shop_log.START + timedelta(days=60)
UNKNOWN_ZONES = ["localtime", "SystemV/PST8PDT", "Mars/Base", "", "' OR 1=1 --", "é" * 64]
NO_AMOUNTS = [math.nan, math.inf, -math.inf, 1e300, -1e300]

zone_names = st.sampled_from(UNKNOWN_ZONES) | st.text(max_size=64).filter(
    lambda name: name not in time_zones.list_known()
)


def plain(number: int, user: int = 0, **more: Any) -> EventRecord:
    at = shop_log.START_MS + number * 3_600_000
    fields = {
        "id": f"e{number:04d}-{user}", "type": "purchase", "user": shop_log.USERS[user],
        "time_ms": at, "received_ms": at, "order_id": f"o{number}-{user}",
        "items": [ItemRecord("A", 2.0, 1.5, "Food/Tea", "Ox")],
    }  # fmt: skip
    return EventRecord(**fields | more)


def answers(log: list[EventRecord]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return every answer about an archive of these events, and what was odd in it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        entries = [(LogPosition(1 + n, 0), event) for n, event in enumerate(log)]
        Archive(home / "archive" / "events").append("part", entries)
        snapshots.build(home, until=END)
        found: dict[str, Any] = {
            view: pq.read_table(home / "features" / view).drop_columns(["created"]).to_pylist()
            for view in BATCH_VIEWS
        }
        with Index(home) as index:
            moment = Cube(index).moment(round(END.timestamp() * 1000))
            found |= {
                "trends": trends.trends(
                    moment, grain="week", event_type="purchase", level=1, category=None, most=9,
                    buckets=52,
                ),
                "drift": drift.drift(moment, months=12, most=9),
                "retention": retention.retention(
                    moment, grain="week", event_type="purchase", periods=12
                ),
                "funnel": funnel.funnel(
                    moment, steps=["view_item", "purchase"], within_ms=10**9, days=365
                ),
                "rfm": rfm.rfm(moment, rows="recency", columns="monetary"),
                "habits": habits.habits(moment, event_type="purchase", days=365),
                "affinities": affinities.affinities(moment, months=12, most=9),
                "clusters": describe(index, np.ones(index.num_users, dtype=np.int64)),
                "spent": index.rows("SELECT u, spend_m FROM facts ORDER BY u", {}),
                "consents": index.rows("SELECT * FROM consents", {}),
            }  # fmt: skip
            return found, index.odd


def rounded(value: Any) -> Any:
    """Return a value with its floats rounded: sums of them depend on their order."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


LINE = plain(0).items[0]
ODD: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    *(({"tz": name}, {"tz": None}) for name in UNKNOWN_ZONES),
    *(({"value": each}, {"value": 0.0 if each < 0 else None}) for each in (*NO_AMOUNTS, -50.0)),
    *(
        ({"items": [msgspec.structs.replace(LINE, **{name: each})]},
         {"items": [msgspec.structs.replace(LINE, **{name: none})]})
        for each in NO_AMOUNTS for name, none in (("price", None), ("quantity", 0.0))
    ),
    *(({"time_ms": each}, None) for each in (-1, LATEST_MS + 1, -(10**14), 10**14)),
]  # fmt: skip
"""What is odd in an event, and what stands in an event that counts as much; None: no event."""


def test_what_is_odd_in_an_event_counts_for_nothing_and_stops_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sound = [plain(n, n % 3) for n in range(30)]
    numbered = list(enumerate(ODD, start=40))
    found, odd = answers([*sound, *(plain(n, n % 3, **fields) for n, (fields, _) in numbered)])
    assert odd == {"tz": len(UNKNOWN_ZONES), "time": 4, "value": 6, "items": 10}
    assert "time of 4 rows" in caplog.text
    mended = [plain(n, n % 3, **fields) for n, (_, fields) in numbered if fields is not None]
    wanted, none = answers([*sound, *mended])
    assert none == {}
    assert rounded(found) == rounded(wanted)


def test_a_refund_of_an_older_archive_counts_without_its_sign() -> None:
    log = [plain(0, value=50.0), plain(1, type="refund", value=-20.0, items=[])]
    assert explicit.fold(log).orders.spend == 30_000
    found, odd = answers(log)
    assert odd == {"value": 1}
    assert found["spent"] == [(0, 30_000)]
    wanted, _ = answers([log[0], msgspec.structs.replace(log[1], value=20.0)])
    assert rounded(found) == rounded(wanted)


def test_an_odd_text_stops_no_answer() -> None:
    odd = [
        plain(35, type=""), plain(35, type="a\x00'\";--"), plain(35, order_id=""),
        plain(35, items=[]), plain(35, items=[ItemRecord("")]),
        plain(35, items=[ItemRecord("A", category="/"), ItemRecord("A", category="//a///")]),
        plain(35, items=[ItemRecord("A", category="", brand="")] * 200),
        plain(35, type="consent_updated", properties={"purpose": 1, "granted": "no"}),
        plain(35, type="consent_updated", consent={"": True, "'": False}),
        plain(35, currency="", device="\x00", query="%" * 2048),
    ]  # fmt: skip
    log = [plain(n, n % 3) for n in range(30)]
    found, _ = answers(log + [msgspec.structs.replace(e, id=f"o{n}") for n, e in enumerate(odd)])
    assert len(found["clusters"]) == 1
    assert found["spent"][0][1] > 0


@given(name=zone_names)
@settings(max_examples=100)
def test_every_other_name_of_a_zone_is_refused_and_read_as_utc(name: str) -> None:
    with pytest.raises(ValueError, match="is not an IANA time zone"):
        check_tz(name)
    assert activity.local_hour(12_345_678, name) == activity.local_hour(12_345_678, None)


def test_what_is_no_json_grants_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive" / "events")
    consent = {"email": True}
    archive.append("part", [(LogPosition(1, 0), plain(1, consent=consent)),
                            (LogPosition(2, 0), plain(2, consent=consent))])  # fmt: skip
    part = archive.parts()[0]
    table = pq.read_table(part)
    at = table.schema.get_field_index("consent")
    for broken in ("{", "[1]", '{"email": 1}', ""):
        changed = table.set_column(at, "consent", [[broken, table["consent"][1].as_py()]])
        pq.write_table(changed, part)
        with Index(tmp_path) as index:
            assert index.rows("SELECT purpose, granted FROM consents", {}) == [("email", True)]
            assert index.odd == ({} if broken.startswith('{"') else {"consent": 1})


def test_the_zones_taken_are_those_that_all_readers_read_alike() -> None:
    assert {"UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"} < time_zones.list_known()
    moments = [
        datetime(year, month, 15, 12, tzinfo=UTC) for year in (2005, 2026) for month in (1, 7)
    ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(
            "SELECT name, epoch_ms(t)::BIGINT // 1000, hour(timezone(name, t)), "
            "isodow(timezone(name, t)) - 1 FROM (SELECT unnest(?) AS name), "
            "(SELECT unnest(?::TIMESTAMPTZ[]) AS t)",
            [sorted(time_zones.list_known()), moments],
        ).fetchall()
    assert len(rows) > 2000
    assert [row for row in rows if activity.local_hour(row[1], row[0]) != (row[2], row[3])] == []
