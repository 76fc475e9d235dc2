"""The users of a campaign's experiment with what they did, out of the archive's index.

A user counts once, with the first decision that assigned them. A decision that Portrait did not
make (`events.MADE`: anybody may send events of any type), or whose arm does not follow from the
campaign's own hash, is left out. Belongs here: gathering. What is concluded is `report`'s.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from feature_repo.audiences.index import Index
from feature_repo.audiences.values import duration_ms
from services.campaigns.assignment import is_held_out
from services.campaigns.definitions import Stored
from services.campaigns.events import MADE, SOURCE, TYPE

Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

_REASONS: Final = f"""
SELECT coalesce({MADE}, false) AS made, properties->>'$.reasons[0]' AS reason, count(*)
FROM archive_events JOIN users ON entity = "user"
WHERE type = $type AND source = $source AND campaign_id = $name AND epoch_ms(time) <= $now_ms
GROUP BY ALL ORDER BY reason
"""  # noqa: S608 - MADE is our own

_USERS: Final = f"""
WITH decided AS (
    SELECT u, entity, epoch_ms(time) AS at_ms, log_ms, log_seq, properties->>'$.assigned' AS arm,
        properties->>'$.arm' = 'treated' AS sent, properties->>'$.reasons[0]' AS reason,
        (properties->>'$.score')::DOUBLE AS score,
        (properties->>'$.explored')::BOOLEAN AS explored
    FROM archive_events JOIN users ON entity = "user"
    WHERE type = $type AND source = $source AND campaign_id = $name AND epoch_ms(time) <= $now_ms
        AND {MADE}
), taken AS (
    SELECT *, bool_or(sent) OVER (PARTITION BY u) AS exposed FROM decided WHERE arm IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY u ORDER BY at_ms, log_ms, log_seq) = 1
)
SELECT t.entity, t.at_ms, t.arm, t.exposed, t.reason, t.score, t.explored,
    coalesce(bool_or(e.type = $goal AND e.time_ms > t.at_ms
        AND (e.is_order OR e.type <> 'purchase')), false),
    coalesce(sum(CASE e.type WHEN 'purchase' THEN e.amount_m WHEN 'refund' THEN -e.amount_m END)
        FILTER (e.time_ms > t.at_ms), 0)::BIGINT,
    coalesce(sum(CASE e.type WHEN 'purchase' THEN e.amount_m WHEN 'refund' THEN -e.amount_m END)
        FILTER (e.time_ms <= t.at_ms), 0)::BIGINT
FROM taken t LEFT JOIN events e ON e.u = t.u AND e.type IN ($goal, 'purchase', 'refund')
    AND e.time_ms > t.at_ms - $before_ms AND e.time_ms <= least(t.at_ms + $within_ms, $now_ms)
GROUP BY ALL ORDER BY t.entity
"""  # noqa: S608 - MADE is our own


@dataclass(frozen=True)
class ExperimentSample:
    """Users of an experiment, one index each; arrays of shape (N,).

    Attributes
    ----------
    at_ms
        First decision that assigned the user.
    treated
        Assigned to treatment, whatever came of it; the others are the control.
    exposed
        A message was sent.
    chosen
        By rank or coin; False of a user whom the campaign passed over.
    explored
        The coin decided.
    score
        What the campaign ranks by; NaN of a user without.
    converted
        The goal's event came within its time after the decision; of purchases a new order.
    revenue, before
        Paid less refunded within the goal's time after the decision, and before it.
    reasons
        Decisions by what decided them, of all users.
    foreign
        Users left out, whose arm does not follow from the hash.
    forged
        Events left out, which say that they are decisions and were not made by Portrait.
    """

    at_ms: npt.NDArray[np.int64]
    treated: Flags
    exposed: Flags
    chosen: Flags
    explored: Flags
    score: Doubles
    converted: Flags
    revenue: Doubles
    before: Doubles
    reasons: dict[str, int]
    foreign: int
    forged: int

    def only(self, some: Flags) -> Self:
        """Return the sample of some of its users."""
        arrays = {n: v[some] for n, v in vars(self).items() if isinstance(v, np.ndarray)}
        return type(self)(**arrays, reasons=self.reasons, foreign=self.foreign, forged=self.forged)


def sample(index: Index, stored: Stored, now_ms: int) -> ExperimentSample:
    """Return the users of a campaign's experiment as of a moment, epoch milliseconds."""
    goal, control = stored.campaign.goal, stored.campaign.control
    request: dict[str, Any] = {
        "type": TYPE, "source": SOURCE, "name": stored.name, "now_ms": now_ms,
    }  # fmt: skip
    counts = index.rows(_REASONS, request)
    reasons = {str(reason): int(count) for made, reason, count in counts if made}
    rows = index.rows(_USERS, request | {
        "goal": goal.event, "within_ms": duration_ms(goal.within),
        "before_ms": duration_ms(goal.before),
    })  # fmt: skip
    mine = [
        row for row in rows
        if is_held_out(stored.salt, row[0], control.holdout) == (row[2] == "control")
    ]  # fmt: skip
    by_column: list[list[Any]] = [list(c) for c in zip(*mine, strict=True)] or [[]] * 10
    _, at_ms, arm, exposed, reason, score, explored, converted, revenue, before = by_column
    return ExperimentSample(
        np.array(at_ms, np.int64),
        np.array([each == "treated" for each in arm], np.bool_),
        np.array(exposed, np.bool_),
        np.array([each != "not_chosen" for each in reason], np.bool_),
        np.array(explored, np.bool_),
        np.array([np.nan if each is None else each for each in score], np.float64),
        np.array(converted, np.bool_),
        np.array(revenue, np.float64) / 1000,
        np.array(before, np.float64) / 1000,
        reasons,
        len(rows) - len(mine),
        sum(int(count) for made, _, count in counts if not made),
    )
