"""Lapse within 28 days: the model beside its peers.

Asked on Mondays of every household that has bought in the 91 days before. Models learn from the
Mondays whose 28 days end before the first Monday of the test; the encoder from what lies before
all of them. Belongs here: the protocol, the peers and the model, which is a `BlockModel`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.events.pseudonyms import Pseudonyms
from training.lab.comparison.page import machine
from training.lab.studies.coupons import BOOSTING, LOGISTIC, OWN, Say, Tell, judge
from training.lab.studies.embedding import StateEncoder
from training.lab.targeting.block_model import BlockModel, FeatureRows, Setting, choose
from training.lab.targeting.campaigns import LAST_DAY, Journey, read_journey
from training.lab.targeting.profile_block import prepare_home, profile_block, read_home
from training.lab.targeting.score_metrics import Doubles

HORIZON_DAYS: Final = 28
ACTIVE_DAYS: Final = 91
"""Who has not bought for longer has lapsed already."""
FITTED_UNTIL: Final = pd.Timestamp("2017-05-29")
"""The encoder learns from what lies before."""
TEST_SINCE: Final = pd.Timestamp("2017-10-02")
PEERS: Final = ("recency", "frequency", "logistic", "boosting")
SCALES: Final = {"rhythm": 1.0, "profile": 0.5, "chance": 1.0, "learned": 0.2}
SETTINGS: Final = tuple(
    Setting(c=0.1, breadth=breadth, boosting=boosting, leaves=8, rounds=120)
    for breadth in (1.0, 0.5)
    for boosting in (0.5, 0.0)
)


def lapse(home: Path, *, seeds: Sequence[int], tell: Tell, say: Say) -> dict[str, Any]:
    """Compare on Complete Journey; parameters and result as `lab.studies.coupons.coupons`."""
    prepare_home(home, lambda line: tell(0, 3, line))
    journey, histories = read_journey(), read_home(home)
    questions = moments(journey)
    test = questions["monday"].to_numpy() >= TEST_SINCE.to_datetime64()
    train = (
        questions["monday"].to_numpy() <= (TEST_SINCE - pd.Timedelta(days=HORIZON_DAYS)).to_numpy()
    )
    rhythm = questions.drop(columns=["household_id", "monday", "label"])
    pseudonyms = Pseudonyms.load(home)
    users = [pseudonyms.of_user(f"household-{n}") for n in questions["household_id"]]
    time_ms = questions["monday"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    tell(0, 3, "point-in-time profiles")
    profile = profile_block(home, users, time_ms)

    def rows(blocks: dict[str, pd.DataFrame], chosen: npt.NDArray[np.bool_]) -> FeatureRows:
        return FeatureRows(
            blocks, questions["label"].to_numpy(np.float64),
            questions["household_id"].to_numpy(np.int64),
            time_ms,
        ).take(np.flatnonzero(chosen))  # fmt: skip

    known = {"rhythm": _logs(rhythm)}
    scores: dict[str, Doubles] = {
        "recency": rhythm["recency_days"].to_numpy(np.float64)[test],
        "frequency": -rhythm["num_orders_91d"].to_numpy(np.float64)[test],
    }
    seconds = dict.fromkeys(scores, 0.0)
    for name, settings in (("logistic", LOGISTIC), ("boosting", BOOSTING)):
        tell(1, 3, name)
        started_s = time.monotonic()
        model = BlockModel({"rhythm": 1.0}, ["rhythm"])
        scores[name] = _fit(model, settings, rows(known, train), rows(known, test))
        seconds[name] = round(time.monotonic() - started_s, 1)
    own, head = [], []
    started_s = time.monotonic()
    for seed in seeds:
        encoder = StateEncoder(
            histories, fitted_until_ms=FITTED_UNTIL.value // 1_000_000, seed=seed,
            tell=lambda line: tell(2, 3, f"encoder: {line}"),
        )  # fmt: skip
        tell(2, 3, "the learned state as of every Monday")
        learned = encoder.at(users, time_ms)
        logit = np.log(learned.probability / (1 - learned.probability))
        blocks = {
            **known,
            "profile": profile,
            "chance": pd.DataFrame(logit, columns=list(encoder.network.outcomes)),
            "learned": pd.DataFrame(learned.vector).add_prefix("u"),
        }
        tell(2, 3, "portrait")
        model = BlockModel(SCALES, ["rhythm", "profile", "chance"])
        own.append(_fit(model, SETTINGS, rows(blocks, train), rows(blocks, test)))
        head.append(logit[test, list(encoder.network.outcomes).index("lapse_28d")])
    scores[OWN] = np.mean(own, axis=0)
    scores["encoder_head"] = np.mean(head, axis=0)
    seconds[OWN] = round(time.monotonic() - started_s, 1)
    judged = rows(known, test)
    result = judge(judged, scores, PEERS)
    for name, row in result["models"].items():
        say(f"{name}: AUC {row['auc']:.4f}")
    return {
        "dataset": "completejourney",
        "study": "lapse",
        "split": {
            "how": f"Mondays from {TEST_SINCE:%d %B %Y}; households that bought in the "
            f"{ACTIVE_DAYS} days before; learned from {int(train.sum()):,} rows of earlier Mondays",
            "test_requests": int(test.sum()),
            "test_users": len(np.unique(judged.user)),
            "lapsed": float(judged.label.mean()),
        },
        **result,
        "seconds": seconds,
        "seeds": list(seeds),
        "not_run": {},
        "machine": machine(),
    }


def _fit(
    model: BlockModel, settings: Sequence[Setting], train: FeatureRows, test: FeatureRows
) -> Doubles:
    model.setting = choose(model, train, settings)
    return model.fit(train).logit(test)


def moments(journey: Journey) -> pd.DataFrame:
    """Return every household and Monday that is asked about, as of the Monday's midnight.

    Returns
    -------
    DataFrame
        ``household_id``, ``monday``, ``label`` (1: no purchase within `HORIZON_DAYS`), and what
        the peers read: days since the last order, orders and spend in 7, 28, 56 and 91 days and
        ever, mean and deviation of the gaps between days with an order, tenure.
    """
    import duckdb

    mondays = pd.date_range(FITTED_UNTIL, LAST_DAY - pd.Timedelta(days=HORIZON_DAYS - 1), freq="7D")
    windows = ", ".join(
        f"count(*) FILTER (age <= {days}) AS num_orders_{days}d, "
        f"coalesce(sum(spend) FILTER (age <= {days}), 0) AS spend_{days}d"
        for days in (7, 28, 56, 91)
    )
    with duckdb.connect() as connection:
        connection.register("lines", journey.lines)
        connection.register("mondays", pd.DataFrame({"monday": mondays}))
        found: pd.DataFrame = connection.execute(
            f"""
            WITH orders AS (
                SELECT household_id, basket_id, min(time) AS time, sum(sales_value) AS spend
                FROM lines GROUP BY ALL
            ), gaps AS (
                SELECT *, date_diff('second', lag(time) OVER (
                    PARTITION BY household_id ORDER BY time), time) / 86400.0 AS gap FROM orders
            ), aged AS (
                SELECT *, date_diff('second', time, monday) / 86400.0 AS age FROM gaps, mondays
            )
            SELECT household_id, monday,
                (count(*) FILTER (age <= 0 AND age > -{HORIZON_DAYS}) = 0)::INT AS label,
                min(age) FILTER (age > 0) AS recency_days, max(age) AS tenure_days,
                coalesce(avg(gap) FILTER (age > 0), {ACTIVE_DAYS}) AS mean_gap_days,
                coalesce(stddev_pop(gap) FILTER (age > 0), 0) AS std_gap_days,
                count(*) FILTER (age > 0) AS num_orders,
                sum(spend) FILTER (age > 0) AS spend, {_past(windows)}
            FROM aged GROUP BY household_id, monday
            HAVING min(age) FILTER (age > 0) <= {ACTIVE_DAYS}
            ORDER BY monday, household_id
            """  # noqa: S608 - built from constants
        ).df()
    return found


def _past(windows: str) -> str:
    return windows.replace("FILTER (age <=", "FILTER (age > 0 AND age <=")


def _logs(table: pd.DataFrame) -> pd.DataFrame:
    out = np.log1p(table.clip(lower=0.0).astype(np.float64))
    relative = table["recency_days"] / table["mean_gap_days"].clip(lower=0.5)
    return pd.DataFrame(out).assign(relative_recency=np.log1p(relative))
