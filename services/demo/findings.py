"""Findings of the demo in the form in which they are shown: figures, one user, a summary.

Belongs here: gathering and wording. Not here: measuring (`replay`, `latency`) or
drawing (`plots`, `report`).
"""

import os
import platform
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import Pseudonyms
from services.demo.latency import percentiles
from services.runtime.progress import console

SHOWN_CATEGORIES = 7


def describe_user(home: Path, user_id: str) -> dict[str, Any]:
    """Return one user's interests month by month and habits, from the feature tables."""
    import duckdb

    user = Pseudonyms.load(home).of_user(user_id)
    with duckdb.connect() as connection:
        rows = connection.execute(
            """SELECT strftime(event_timestamp AT TIME ZONE 'UTC', '%b') AS month,
                      arg_max(interest_categories, event_timestamp),
                      arg_max(interest_category_weights, event_timestamp)
               FROM read_parquet(?) WHERE "user" = ? GROUP BY month
               ORDER BY max(event_timestamp)""",
            [str(home / "features" / "profile" / "*.parquet"), user],
        ).fetchall()
        baskets = connection.execute(
            """SELECT isodow(time AT TIME ZONE 'UTC') - 1, hour(time AT TIME ZONE 'UTC'), count(*)
               FROM read_parquet(?) WHERE "user" = ? AND type = 'purchase' GROUP BY ALL""",
            [Archive(home / "archive" / "events").glob(), user],
        ).fetchall()
    grid = [[0] * 24 for _ in range(7)]
    for weekday, hour, count in baskets:
        grid[weekday][hour] = count
    total = Counter[str]()
    for _, names, weights in rows:
        total.update(dict(zip(names, weights, strict=True)))
    top = [name for name, _ in total.most_common(SHOWN_CATEGORIES)]
    shares: dict[str, list[float]] = {name: [] for name in [*top, "all other"]}
    for _, names, weights in rows:
        of = dict(zip(names, weights, strict=True))
        whole = sum(weights) or 1.0
        for name in top:
            shares[name].append(of.get(name, 0.0) / whole)
        shares["all other"].append(1 - sum(shares[name][-1] for name in top))
    return {
        "months": [month for month, *_ in rows], "shares": shares, "habits": grid,
        "baskets": sum(count for *_, count in baskets),
    }  # fmt: skip


def figures(
    imported: dict[str, Any],
    offline: dict[str, dict[str, Any]],
    live: dict[str, Any],
    cut_off: datetime,
    seconds: float,
) -> dict[str, Any]:
    """Return everything that ``report.json`` holds."""
    import torch

    reasons = imported["rejected"] | imported["set_aside"]
    return {
        "about": (
            f"{imported['rows_in']:,} rows of real grocery purchases by {imported['users']:,} "
            f"households in 2017 (Complete Journey, 84.51°): imported, turned into features, "
            f"trained on up to {cut_off:%d %B}, served, and the last fortnight replayed live."
        ),
        "dataset": {
            "name": "completejourney", "events_in": imported["rows_in"],
            "accepted": imported["accepted"],
            "rejected": imported["rows_in"] - imported["accepted"], "reasons": reasons,
            "events": imported["events"] + imported["events_held"], "users": imported["users"],
        },
        "training": {key: offline["train"][key] for key in ("model", "seconds")}
        | {"rows": offline["dataset"]["rows"]},
        "evaluation": offline["evaluate"],
        "replay": live["replay"],
        "parity": live["parity"],
        "latency_ms": {
            name.replace(" ", "_"): percentiles(values)
            for name, values in live["series_ms"].items()
        },
        "seconds": {name: result["seconds"] for name, result in offline.items()}
        | {"import": imported["seconds"], "this_run": round(seconds, 1)},
        "machine": (
            f"Measured on {os.cpu_count()} cores, {platform.machine()}, Python "
            f"{platform.python_version()}, torch {torch.__version__}; written "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
        ),
    }  # fmt: skip


def show_summary(figures: dict[str, Any], example: str, page: Path, data: Path) -> None:
    """Print the table that ends the demo, the worked example and where to look next."""
    basket = figures["evaluation"]["next_basket"]
    low, high = figures["evaluation"]["difference"]["model"]["ndcg@10"]["ci"]
    latency, parity, replay = figures["latency_ms"], figures["parity"], figures["replay"]
    table = Table(title="Portrait, the whole loop", title_justify="left", show_header=False)
    dataset = figures["dataset"]
    table.add_row(
        "rows in", f"{dataset['events_in']:,} = {dataset['accepted']:,} accepted + "
        f"{dataset['rejected']:,} not (reasons in report.json)",
    )  # fmt: skip
    table.add_row(
        "NDCG@10", f"model {basket['model']['ndcg@10']:.4f}, decayed frequency "
        f"{basket['decayed_frequency']['ndcg@10']:.4f}, popularity "
        f"{basket['popularity']['ndcg@10']:.4f}; model − decayed frequency "
        f"[{low:+.4f}, {high:+.4f}]",
    )  # fmt: skip
    table.add_row(
        "replay", f"{replay['acknowledged']:,} acknowledged, {replay['applied']:,} applied in "
        f"{replay['seconds']:.1f} s",
    )  # fmt: skip
    table.add_row("live = offline", f"{parity['users']:,} users, {parity['mismatches']} mismatches")
    for name in ("event_to_profile", "recommend"):
        table.add_row(
            name.replace("_", " "), f"p50 {latency[name]['p50']:.1f} ms, p99 "
            f"{latency[name]['p99']:.1f} ms",
        )  # fmt: skip
    table.add_row("time", f"{figures['seconds']['this_run']:.0f} s")
    console.print(table)
    console.print(example, markup=False, soft_wrap=True)
    console.print(
        f"\nNext: open {page} · figures in {data} · `make demo ARGS=--keep-serving` leaves the "
        f"service up · your own data: docs/data.md",
        markup=False, soft_wrap=True,
    )  # fmt: skip
