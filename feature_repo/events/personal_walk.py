"""A walk through an event's texts that hashes or refuses the personal data in them.

Belongs here: which values, names and parts of URLs are texts, and how one is put together again.
What personal data look like is `personal_data`'s, which fields are looked through `minimisation`'s.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from feature_repo.events.personal_data import Found, find, may_hold, split_url
from feature_repo.events.schema import pointer

TERMS: Final = "terms"
"""Property that says until when a grant holds."""
_SAID: Final = ("expires_at", "version")
_LEAST_NUMBER: Final = 10**6  # a phone number has seven digits
_UNQUOTED: Final = ":@!$'()*,;~[]"


class Refusal(NamedTuple):
    """Why an event is not taken: JSON pointer and detail; the value is in neither."""

    pointer: str
    detail: str


class PersonalWalk:
    """Goes through what an event says in words.

    Parameters
    ----------
    hash_text
        Returns what stands in the place of something found.
    keep
        Whether what is found is noted, and left as it is.
    """

    def __init__(self, hash_text: Callable[[str], str], *, keep: bool) -> None:
        self._hash, self._keep = hash_text, keep
        self.refusal: Refusal | None = None

    def properties(self, properties: dict[str, Any], *, is_stating: bool) -> dict[str, Any]:
        """Return properties as they are to be kept.

        Parameters
        ----------
        is_stating
            Whether they say something about consent: then its terms stay as they are.
        """
        terms = properties.get(TERMS)
        if not is_stating or not isinstance(terms, dict):
            return dict(self.value(properties, ("properties",)))
        said = {purpose: self._term(each, purpose) for purpose, each in terms.items()}
        kept = dict(self.value({**properties, TERMS: None}, ("properties",)))
        return {**kept, TERMS: said}

    def _term(self, term: Any, purpose: str) -> Any:
        at = ("properties", TERMS, purpose)
        if not isinstance(term, dict):
            return self.value(term, at)
        said = {n: term[n] for n in _SAID if n in term and not isinstance(term[n], dict | list)}
        return {**self.value({**term, **dict.fromkeys(said)}, at), **said}

    def value(self, value: Any, at: tuple[int | str, ...]) -> Any:
        """Return a value of properties as it is to be kept."""
        if isinstance(value, str):
            return self.text(value, at)
        if isinstance(value, dict):
            kept = dict[str, Any]()
            for key, each in value.items():
                name = self.text(key, at)
                while name in kept:  # two spellings of one
                    key = f"name {key}"  # noqa: PLW2901
                    name = self._hash(key)
                kept[name] = self.value(each, (*at, name))
            return kept
        if isinstance(value, list):
            return [self.value(each, (*at, n)) for n, each in enumerate(value)]
        if isinstance(value, int) and value >= _LEAST_NUMBER:
            found = find(str(value), _name_of(at))
            return self._replace(str(value), found, at) if found else value
        return value

    def text(self, text: str, at: tuple[int | str, ...], *, is_url: bool = False) -> str:
        """Return a text as it is to be kept."""
        if not is_url and "://" not in text:
            return self._replace(text, find(text, _name_of(at)), at)
        if not may_hold(text):
            return text
        parts = list[str]()
        for written, plain, name in split_url(text):
            found = find(plain, name)
            kept = self._replace(plain, found, at)
            safe = _UNQUOTED + "/" if "/" in written else _UNQUOTED
            parts.append(written if kept == plain else quote(kept, safe=safe))
        return "".join(parts)

    def _replace(self, text: str, found: Iterable[Found], at: tuple[int | str, ...]) -> str:
        parts, end = list[str](), 0
        for one in found:
            if self._keep:
                self.refusal = self.refusal or refuse(pointer(at), one.likeness)
                return text
            parts += (text[end : one.start], self._hash(one.plain))
            end = one.end
        return "".join((*parts, text[end:])) if parts else text


def _name_of(at: tuple[int | str, ...]) -> str:
    """Return the name of the property that a value stands in."""
    return next((part for part in reversed(at[1:]) if isinstance(part, str)), "")


def refuse(where: str, likeness: str) -> Refusal:
    """Return that something is not taken for what it looks like."""
    return Refusal(where, f"looks like {likeness}: send the event without it")
