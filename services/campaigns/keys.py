"""Names of the keys that campaigns keep in the store.

Pure naming. All carry one tag, so that one step may touch a user's messages and a campaign's
budget together, on a cluster too.
"""

from typing import Final

CAMPAIGNS: Final = "{campaigns}all"
"""Hash of the definitions by name."""


def state_key(name: str) -> str:
    """Return the hash of what a campaign has decided and spent, and of its threshold."""
    return f"{{campaigns}}state:{name}"


def decisions_key(pseudonym: str) -> str:
    """Return the hash of a user's kept decisions."""
    return f"{{campaigns}}decisions:{pseudonym}"


def sent_key(pseudonym: str) -> str:
    """Return the sorted set of a user's messages by time."""
    return f"{{campaigns}}sent:{pseudonym}"
