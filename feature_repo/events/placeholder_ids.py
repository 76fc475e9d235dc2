"""Ids that are nobody's: what programs send where they had none.

Whoever takes one for a user's joins strangers into one profile. Belongs here: which they are.
"""

import os
import re
from functools import lru_cache
from typing import Final

WORDS: Final = frozenset(
    {"undefined", "null", "none", "nil", "nan", "anonymous", "[object object]", "-1", ".", ".."}
)
"""In any letter case. Of dots alone a client makes another path before it asks."""
SETTING: Final = "PORTRAIT_NOBODY_IDS"
_ZEROS: Final = re.compile(r"0[0-]*0")  # `0` alone may be the first user of a table


def is_nobody(value: str) -> bool:
    """Say whether an id is nobody's.

    Examples
    --------
    >>> [is_nobody(one) for one in ("NULL", "00000000-0000-0000-0000-000000000000", " ", "0", "u7")]
    [True, True, True, False, False]
    """
    word = value.strip().casefold()
    return (
        not word
        or word in WORDS
        or _ZEROS.fullmatch(word) is not None
        or word in _more(os.environ.get(SETTING, ""))
    )


@lru_cache(maxsize=8)
def _more(listed: str) -> frozenset[str]:
    return frozenset(word.strip().casefold() for word in listed.split(",") if word.strip())


def check_user_id(value: str) -> str:
    """Return an id of a user as it came; refuse one that is nobody's, or not trimmed."""
    if is_nobody(value):
        raise ValueError(f"{value[:40]!r} is nobody's id: leave it out where there is none")
    if value != value.strip():
        raise ValueError("an id neither begins nor ends with white space: send it trimmed")
    return value
