"""Names of the keys that erasures keep in the store. Pure naming."""

from typing import Final

PENDING: Final = "portrait:erasures:pending"
"""Hash of the ids of erasures that are not done, each with how many rows went when it began."""
KNOWN: Final = "portrait:erasures"
"""Set of the ids of erasures that this store has seen done: one that was restored lacks some."""
RENEWED: Final = "portrait:erasures:renewed"
"""Number of runs that are through: who sees it rise lets go of what memory holds."""
