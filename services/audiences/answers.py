"""Answers about audiences: how many, who, how far two overlap; for HTTP and command line.

Belongs here: putting definitions, an index and a moment together. What stands behind a
definition is `feature_repo.audiences`'; where definitions are kept `definitions`'.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from feature_repo.audiences import language
from feature_repo.audiences.compiler import Query, compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.plan import plan
from feature_repo.audiences.ready import PREFIX
from feature_repo.audiences.references import references
from feature_repo.audiences.rules import Definition
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.events.schema import iso
from services.audiences.schemas import Overlap, OverlapPair, Preview

MAX_PAGE: Final = 10_000
MAX_OVERLAP: Final = 10
_ONE: Final = f"{PREFIX}one"
_OTHER: Final = f"{PREFIX}other"
"""Names that no stored audience has."""


class AudienceAnswers:
    """Answers about audiences as of one moment.

    Parameters
    ----------
    known
        Every audience by name, the ready ones too.
    now_ms
        The moment, epoch milliseconds. Where the index holds later events they are left
        out, and every figure is what it was then.
    """

    def __init__(self, index: Index, known: Mapping[str, Definition], now_ms: int) -> None:
        self._index = index
        self._known = known
        self._now_ms = now_ms

    @property
    def now_ms(self) -> int:
        """The moment, epoch milliseconds."""
        return self._now_ms

    @property
    def users(self) -> int:
        """All users that are counted."""
        return self._index.num_counted

    def preview(self, definition: Definition) -> Preview:
        """Return how many members a definition has, of how many, how it was found and how soon."""
        started_s = time.perf_counter()
        count = self.count(definition)
        took_ms = (time.perf_counter() - started_s) * 1000
        return {
            "count": count,
            "users": self._index.num_counted,
            "took_ms": round(took_ms, 3),
            "as_of": iso(self._now_ms),
            "contactable": bool(definition.consent),
            "plan": plan(definition, self._known),
            "data": {
                "events": self._index.num_events,
                "newest_event": iso(self._index.newest_ms) if self._index.num_events else None,
            },
        }

    def preview_of(self, name: str) -> Preview:
        """Do what `preview` does for an audience by name."""
        return self.preview(self.find(name))

    def page(self, name: str, after: str, limit: int) -> list[str]:
        """Return up to ``limit`` members by pseudonym, those after ``after``."""
        query = self._query(self.find(name))
        rows = self._index.rows(
            query.members(), {**query.parameters, "after": after, "limit": limit}
        )
        return [str(row[0]) for row in rows]

    def everyone(self, name: str) -> Iterator[list[str]]:
        """Yield all members, in pages."""
        after = ""
        while page := self.page(name, after, MAX_PAGE):
            yield page
            after = page[-1]

    def overlap(self, names: Sequence[str]) -> Overlap:
        """Return the sizes of audiences, and of every two what both hold.

        Raises
        ------
        InvalidInputError
            If they are not 2 to `MAX_OVERLAP` different ones.
        """
        compared = list_pairs(names)
        sizes = {name: self._count([name]) for name in names}
        pairs = list[OverlapPair]()
        for one, other in compared:
            both = self._count([one, other])
            either = sizes[one] + sizes[other] - both
            jaccard = round(both / either, 6) if either else None
            pairs.append({"a": one, "b": other, "both": both, "either": either, "jaccard": jaccard})
        return {"as_of": iso(self._now_ms), "counts": {**sizes}, "pairs": pairs}

    def count(self, definition: Definition) -> int:
        """Return how many members a definition has."""
        return self._count_of(self._query(definition))

    def write_out(self, definition: Definition) -> dict[str, Any]:
        """Return a definition with all audiences that it rests on, as JSON documents by name."""
        found, open_names = {"": language.to_document(definition)}, [*references(definition)]
        while open_names:
            name = open_names.pop()
            if name not in found:
                other = self.find(name)
                found[name] = language.to_document(other)
                open_names += references(other)
        return found

    def count_apart(self, definition: Definition, other: Mapping[str, Any]) -> int:
        """Return how many people are members of a definition or of another, but not of both.

        Parameters
        ----------
        other
            What `write_out` gave; the audiences that it rests on may have changed since.
        """
        known = {**self._known, _ONE: definition, **_read_written(other)}
        one, two = {"audience": _ONE}, {"audience": _OTHER}
        rule = {"any": [{"all": [one, {"not": two}]}, {"all": [two, {"not": one}]}]}
        apart = Definition.model_validate({"rule": rule, "consent": []})
        return self._count_of(self._query(apart, known))

    def count_written(self, other: Mapping[str, Any]) -> int:
        """Return how many members a definition has that `write_out` gave."""
        known = {**self._known, **_read_written(other)}
        return self._count_of(self._query(of_all([_OTHER]), known))

    def find(self, name: str) -> Definition:
        """Return an audience by name, or raise `NotFoundError`."""
        if name not in self._known:
            raise NotFoundError(f"no audience is named {name}")
        return self._known[name]

    def _count(self, names: Sequence[str]) -> int:
        for name in names:
            self.find(name)
        return self.count(of_all(names))

    def _count_of(self, query: Query) -> int:
        return int(self._index.rows(query.count(), query.parameters)[0][0])

    def _query(
        self, definition: Definition, known: Mapping[str, Definition] | None = None
    ) -> Query:
        past = self._index.is_past(self._now_ms)
        return compile_definition(
            definition, self._known if known is None else known, now_ms=self._now_ms, past=past
        )


def list_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return every two of 2 to `MAX_OVERLAP` different names, else raise `InvalidInputError`."""
    if not 2 <= len(set(names)) == len(names) <= MAX_OVERLAP:
        raise InvalidInputError(f"name 2 to {MAX_OVERLAP} different audiences")
    return list(combinations(names, 2))


def of_all(names: Sequence[str]) -> Definition:
    """Return the definition of those who are in each of some audiences."""
    rule = {"all": [{"audience": name} for name in names]}
    return Definition.model_validate({"rule": rule, "consent": []})


def _read_written(other: Mapping[str, Any]) -> dict[str, Definition]:
    names = {name: f"{_OTHER}-{n}" if name else _OTHER for n, name in enumerate(other)}
    return {
        names[name]: Definition.model_validate(_rename(document, names))
        for name, document in other.items()
    }


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    """Return a document in which audiences have other names."""
    if isinstance(value, dict):
        if list(value) == ["audience"]:
            return {"audience": names[value["audience"]]}
        return {key: _rename(each, names) for key, each in value.items()}
    return [_rename(each, names) for each in value] if isinstance(value, list) else value
