"""The people of an erasure, and what was found of them and removed in one place.

Pure values, which the files' half and the store's half of an erasure share.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Erased:
    """The people of one run of erasures.

    Attributes
    ----------
    entities
        Pseudonyms, those of linked anonymous ids included.
    ids
        Raw user ids and anonymous ids, where they are known.
    event_keys
        Source and event id of events known to be theirs; may be empty.
    """

    entities: frozenset[str]
    ids: frozenset[str]
    event_keys: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Removal:
    """What became of the erased people in one place.

    Attributes
    ----------
    store
        Name of the place, such as ``archive``.
    found, removed
        How many entries or rows were theirs, and how many of them are gone.
    waits_until_ms
        When the rest is gone by itself; None: nothing waits.
    note
        What a reader of the receipt should know besides.
    """

    store: str
    found: int
    removed: int
    waits_until_ms: int | None = None
    note: str = ""
