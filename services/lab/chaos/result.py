"""The figures of `portrait chaos`, and what they say."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from services.lab.chaos.check import Findings
from services.lab.chaos.load import ChaosClient
from services.lab.chaos.nemesis import Nemesis
from services.lab.chaos.plan import FaultPlan

_FAULTS: Final = ("lost", "doubled", "misordered", "wrong", "dead")


def result(
    plan: FaultPlan,
    clients: Sequence[ChaosClient],
    nemesis: Nemesis,
    found: Findings,
    *,
    drained: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return what was done and what was found.

    Parameters
    ----------
    drained
        Whether everything was applied in the end.
    seconds
        Length of the load.
    """
    senders = [client.sender for client in clients]
    acknowledged = sum(sender.acknowledged for sender in senders)
    figures = {
        "acknowledged": acknowledged, "kills": dict(nemesis.kills), "pauses": nemesis.pauses,
        "power_cuts": len(nemesis.cuts_s), "drained": drained,
        **{name: getattr(found, name) for name in _FAULTS},
        "forgotten": found.forgotten, "seconds": round(seconds, 1), "seed": plan.seed,
        "clients": plan.clients, "durability": plan.durability,
        "model": None if plan.model is None else plan.model.name,
        "batches": sum(len(sender.acked_s) for sender in senders),
        "resends": sum(client.resends for client in clients),
        "deliberate_repeats": sum(client.repeats for client in clients),
        "cut": sum(client.cut for client in clients),
        "events_in_log": found.events_in_log, "users": found.users,
        "rate_per_s": round(acknowledged / seconds, 1),
        "recovery_s": recovery_s(
            sorted(at_s for sender in senders for at_s in sender.acked_s), nemesis.harmed_s
        ),
        "examples": found.examples,
    }  # fmt: skip
    if plan.guard is not None:
        figures |= {"break": plan.guard, "caught": verdict(figures) is not None}
    return figures


def recovery_s(acked_s: Sequence[float], harmed_s: Sequence[float]) -> dict[str, float]:
    """Return p50 and max of the longest stretch without an acknowledgement after each kill.

    Examples
    --------
    >>> recovery_s([1.0, 2.0, 5.0, 5.5, 6.5], [2.5, 5.2])
    {'p50': 1.75, 'max': 2.5}
    """
    acked, stretches = np.array(acked_s), list[float]()
    for begin_s, end_s in zip(harmed_s, [*harmed_s[1:], np.inf], strict=True):
        last = np.searchsorted(acked, end_s) + 1  # the answer that ends the last stretch
        moments = np.append(begin_s, acked[np.searchsorted(acked, begin_s) : last])
        stretches.append(float(np.diff(moments).max(initial=0.0)))
    if not stretches:
        return {}
    return {
        "p50": round(float(np.median(stretches)), 3), "max": round(max(stretches), 3)
    }  # fmt: skip


def verdict(figures: dict[str, Any]) -> str | None:
    """Return in one line what a run found to be wrong, None if nothing."""
    found = [f"{figures[name]:,} {name}" for name in _FAULTS if figures[name]]
    if not figures["drained"]:
        found.append("not drained")
    return ", ".join(found) or None
