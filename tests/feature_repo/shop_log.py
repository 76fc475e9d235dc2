"""Small random shops: events, an archive of them, and a folder to build features in."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.schema import EventRecord, ItemRecord

DAY_MS = 86_400_000
START = datetime(2024, 1, 3, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
USERS = ("{p000}" + "a" * 26, "{p001}" + "b" * 26, "{p001}" + "c" * 26)
CATEGORIES = ("Food/Tea/Green", "Food/Tea/Black", "Home/Lamp", None)
BRANDS = ("Ox", "Yak", None)


@st.composite
def events(draw: st.DrawFn, days: int = 130, most: int = 30) -> list[EventRecord]:
    """Draw a log over ``days`` days."""
    made = []
    for number in range(draw(st.integers(0, most))):
        kind = draw(
            st.sampled_from(
                [
                    "purchase",
                    "purchase",
                    "view_item",
                    "refund",
                    "message_sent",
                    "search",
                    "campaign_decision",
                ]
            )
        )
        time_ms = START_MS + draw(st.integers(0, days * 24 - 1)) * 3_600_000
        shown = kind in {"purchase", "view_item", "refund"}
        numbers = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)) if shown else []
        items = [
            ItemRecord(
                f"i{index}",
                quantity=float(draw(st.integers(1, 3))),
                price=draw(st.sampled_from([None, 1.25, 4.5])),
                category=CATEGORIES[index % 4],
                brand=BRANDS[index % 3],
                discount=draw(st.sampled_from([None, 0.5, 9.0])),
            )
            for index in numbers
        ]
        made.append(
            EventRecord(
                id=f"e{number:03d}",
                type=kind,
                user=draw(st.sampled_from(USERS)),
                time_ms=time_ms,
                received_ms=time_ms,
                items=items,
                order_id=draw(st.sampled_from(["o", f"o{number}"])) if items else None,
                value=draw(st.sampled_from([None, 7.0])) if kind == "purchase" else None,
                tz=draw(st.sampled_from([None, "Asia/Shanghai"])),
            )
        )
    return sorted(made, key=lambda e: (e.time_ms, e.id))


def write(home: Path, log: list[EventRecord], name: str = "part") -> Path:
    """Archive a log under ``home`` and return ``home``."""
    if log:
        Archive(home / "archive" / "events").append(
            name, [(LogPosition.imported(e.time_ms), e) for e in log]
        )
    return home


def copies(log: list[EventRecord], prefix: str) -> list[EventRecord]:
    """Return copies of events under new ids."""
    return [msgspec.structs.replace(e, id=f"{prefix}-{e.id}") for e in log]
