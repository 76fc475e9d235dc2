"""Fault plan of a run of `portrait chaos`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feature_repo.errors import InvalidInputError
from services.lab.chaos.guards import Guard
from services.models.loaded import version_of


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What is done.

    Attributes
    ----------
    seconds, events
        The load ends after so long, or so many acknowledged events.
    seed
        Of the load and of the harm; how the processes race, no seed decides.
    clients
        Threads that send.
    guard
        Left out of the service's code; None for the code as it is.
    store_kills, power_cuts
        Whether the store is killed, and whether it forgets its last writes with that.
    durability
        Of the store.
    model
        Model directory; None: no learned states.
    """

    seconds: float = 60.0
    seed: int = 1
    clients: int = 4
    events: int | None = None
    guard: Guard | None = None
    store_kills: bool = False
    power_cuts: bool = False
    durability: Literal["everysec", "always"] = "everysec"
    model: Path | None = None

    def __post_init__(self) -> None:
        if self.cuts and self.durability == "always":
            raise InvalidInputError(
                "a power cut takes what no fsync has confirmed, with durability always nothing: "
                "use --durability everysec"
            )
        if self.model is not None and version_of(self.model) is None:
            raise InvalidInputError(f"{self.model} is no model directory: it has no manifest.json")

    @property
    def cuts(self) -> int:
        """How often the store's power is cut, as a weight beside other harms.

        Only that shows that the last entry is looked at, and only now and then: see `rest_s`.
        """
        return 30 if self.guard == "last-entry" else 4 * self.power_cuts

    @property
    def archive_every_s(self) -> float:
        """How often the log is archived: often, or as ever when the fence is to be missed.

        What is archived leaves the log, and the look at the last entry then stops a commit
        that comes so late, with or without the fence.
        """
        return 10.0 if self.guard == "fence" else 2.0

    @property
    def rest_s(self) -> float:
        """How long a client rests after a batch: not at all, or so that updaters wait for it.

        Only an updater that waits is given an entry in the moment in which it is written, and
        holds it when the power cut takes that entry and no commit before it.
        """
        return 0.3 if self.guard == "last-entry" else 0.0
