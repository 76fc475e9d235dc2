"""Assignment to arms: a hash, so that anybody can compute it again from the logged salt.

``hash_share(salt, pseudonym)`` takes the first 8 bytes of SHA-256 of ``salt|pseudonym`` as a
big-endian number, drops the lowest 11 bits and divides by 2^53: a number in [0, 1) that a double
holds exactly. A user is held out where it is below the hold-out's share. Belongs here: the hashes.
"""

import hashlib
from typing import Final

GLOBAL_SALT: Final = "portrait:global"
"""Of the service's global hold-out; a campaign's salt has no colon."""


def hash_share(salt: str, pseudonym: str) -> float:
    """Return a user's number in [0, 1) under a salt.

    Parameters
    ----------
    salt
        Different salts give independent numbers.

    Examples
    --------
    >>> hash_share("spring", "{p007}" + "a" * 26)
    0.7425809921272687
    """
    digest = hashlib.sha256(f"{salt}|{pseudonym}".encode()).digest()
    number: int = int.from_bytes(digest[:8], "big") >> 11
    return number / 2**53


def is_held_out(salt: str, pseudonym: str, share: float) -> bool:
    """Say whether a user is in the hold-out of a salt; a larger share holds the smaller's users."""
    return hash_share(salt, pseudonym) < share


def random_score(salt: str, pseudonym: str) -> float:
    """Return what ``rank_by: random`` orders by, in [0, 1)."""
    return hash_share(f"{salt}:rank", pseudonym)


def is_explored(salt: str, pseudonym: str, share: float) -> bool:
    """Say whether a coin decides about a user in place of the rank."""
    return hash_share(f"{salt}:explore", pseudonym) < share


def coin(salt: str, pseudonym: str) -> bool:
    """Return the coin of a user who is explored."""
    return hash_share(f"{salt}:coin", pseudonym) < 0.5
