"""A made-up shop large enough for aggregates of twenty, as events and as a pandas table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
DAYS = 230
USERS = 900
CATEGORIES = ("Food/Tea", "Food/Bread", "Food/Jam", "Food/Salt", "Home/Lamp", "Home/Rug", "Odd/One")
WEIGHTS = (0.25, 0.25, 0.15, 0.05, 0.18, 0.1, 0.02)
KINDS = ("view_item", "add_to_cart", "purchase", "message_sent")


def table(seed: int = 5) -> pd.DataFrame:
    """Return events: user, kind, time_ms, tz, categories (list), prices (list)."""
    dice = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(USERS):
        begins = int(dice.integers(0, 150)) if number >= 200 else 0
        eager = dice.gamma(2.0, 6.0)
        for _ in range(1 + dice.poisson(eager)):
            # Quarter days: many events of one user share a moment.
            hour = int(dice.choice([7, 13, 13, 19]))
            day = int(dice.integers(begins, DAYS))
            lines = int(dice.integers(1, 4))
            chosen = [str(each) for each in dice.choice(CATEGORIES, size=lines, p=WEIGHTS)]
            if day > 130 and dice.random() < 0.4:
                chosen[0] = "Home/Rug"
            if "Food/Bread" in chosen and dice.random() < 0.5:
                chosen.append("Food/Jam")
            rows.append({
                "user": f"{{p00{number % 3}}}u{number:025d}",
                "kind": str(dice.choice(KINDS, p=[0.3, 0.2, 0.4, 0.1])),
                "time_ms": START_MS + day * DAY_MS + hour * HOUR_MS,
                "tz": "America/New_York" if number % 2 else None,
                "categories": chosen,
                "prices": [float(dice.integers(1, 9)) for _ in chosen],
            })  # fmt: skip
    return pd.DataFrame(rows)


def write(home: Path, events: pd.DataFrame, *, features: bool = False) -> None:
    """Put the shop below ``home``, in the order of the table's rows."""
    entries = [
        (LogPosition(START_MS + number, 0), EventRecord(
            id=f"e{number:06d}", type=row.kind, user=row.user, time_ms=int(row.time_ms),
            received_ms=int(row.time_ms), tz=row.tz,
            order_id=f"o{number}" if row.kind == "purchase" else None,
            items=[
                ItemRecord(f"i-{category}", price=price, category=category)
                for category, price in zip(row.categories, row.prices, strict=True)
            ],
        ))
        for number, row in enumerate(events.itertuples())
    ]  # fmt: skip
    Archive(home / "archive" / "events").append("import", entries)
    if features:
        end_ms = START_MS + (DAYS + 1) * DAY_MS
        snapshots.build(home, until=datetime.fromtimestamp(end_ms / 1000, UTC))
