"""Raw ids in rows as a shop wrote them: whose pseudonyms they make is how the erased are known.

Only pseudonyms stay of the erased, so each value of a row is turned into one. Belongs here: text
that may be JSON or not. Not here: tables of pseudonyms.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from feature_repo.erasure import tombstones
from feature_repo.events.pseudonyms import Pseudonyms

_WORDS: Final = re.compile(r"[^\s,;|\"'{}\[\]()<>]+")


class RawIds:
    """Says of raw text whether it names somebody.

    Parameters
    ----------
    entities
        Pseudonyms of those looked for.
    ids
        Raw ids of theirs, where known.
    pseudonyms
        Makes pseudonyms of what stands in the text; None: only ``ids`` are looked for.
    """

    def __init__(
        self, entities: Collection[str], ids: Collection[str], pseudonyms: Pseudonyms | None
    ) -> None:
        self._entities, self._ids = frozenset(entities), frozenset(ids)
        self._pseudonyms = pseudonyms

    @classmethod
    def below(cls, home: Path) -> "RawIds":
        """Return one that knows everybody erased below ``home``."""
        erased = tombstones.read(home)
        return cls(erased, (), Pseudonyms.load(home) if erased else None)

    def stand_in(self, text: str) -> bool:
        """Say whether a value of a JSON text, or a word of any other, is somebody's id.

        Examples
        --------
        >>> found = RawIds((), ("u1",), None)
        >>> found.stand_in('{"who": ["u1"]}'), found.stand_in("u2;u1;x"), found.stand_in("u10")
        (True, True, False)
        """
        if not self._entities and not self._ids:
            return False
        try:
            values = _values(orjson.loads(text))
        except ValueError:  # no JSON, or a row cut off
            values = (part for word in _WORDS.findall(text) for part in (word, *word.split(":")))
        return any(map(self.is_one, values))

    def is_one(self, value: str) -> bool:
        """Say whether a value is somebody's user id, anonymous id or pseudonym."""
        return self.is_user(value) or self.is_anonymous(value) or value in self._entities

    def is_user(self, value: str) -> bool:
        """Say whether a value is somebody's user id."""
        made = self._pseudonyms
        return value in self._ids or (made is not None and made.of_user(value) in self._entities)

    def is_anonymous(self, value: str) -> bool:
        """Say whether a value is somebody's anonymous id."""
        made = self._pseudonyms
        return value in self._ids or (
            made is not None and made.of_anonymous(value) in self._entities
        )


def _values(body: Any) -> Iterator[str]:
    left = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            yield value
            yield value.strip()
        elif isinstance(value, int | float):
            yield str(value)
            if isinstance(value, float) and value.is_integer():
                yield str(int(value))
