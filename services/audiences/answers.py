"""Answers about audiences: how many, who, how far two overlap; for HTTP and command line.

Belongs here: putting definitions, an index and a moment together. What stands behind a
definition is `feature_repo.audiences`'; where definitions are kept `definitions`'.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from feature_repo.audiences.compiler import Query, compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.plan import plan
from feature_repo.audiences.rules import Definition
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.events.schema import iso
from services.audiences.schemas import Overlap, OverlapPair, Preview

MAX_PAGE: Final = 10_000
MAX_OVERLAP: Final = 10


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

    def preview(self, definition: Definition) -> Preview:
        """Return how many members a definition has, of how many, how it was found and how soon."""
        query = self._query(definition)
        started_s = time.perf_counter()
        count = int(self._index.rows(query.count(), query.parameters)[0][0])
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
        return self.preview(self._find(name))

    def page(self, name: str, after: str, limit: int) -> list[str]:
        """Return up to ``limit`` members by pseudonym, those after ``after``."""
        query = self._query(self._find(name))
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
        if not 2 <= len(set(names)) == len(names) <= MAX_OVERLAP:
            raise InvalidInputError(f"name 2 to {MAX_OVERLAP} different audiences")
        sizes = {name: self._count([name]) for name in names}
        pairs = list[OverlapPair]()
        for one, other in combinations(names, 2):
            both = self._count([one, other])
            either = sizes[one] + sizes[other] - both
            jaccard = round(both / either, 6) if either else None
            pairs.append({"a": one, "b": other, "both": both, "either": either, "jaccard": jaccard})
        return {"as_of": iso(self._now_ms), "counts": sizes, "pairs": pairs}

    def _count(self, names: Sequence[str]) -> int:
        for name in names:
            self._find(name)
        rule = {"all": [{"audience": name} for name in names]}
        query = self._query(Definition.model_validate({"rule": rule, "consent": []}))
        return int(self._index.rows(query.count(), query.parameters)[0][0])

    def _find(self, name: str) -> Definition:
        if name not in self._known:
            raise NotFoundError(f"no audience is named {name}")
        return self._known[name]

    def _query(self, definition: Definition) -> Query:
        past = self._index.is_past(self._now_ms)
        return compile_definition(definition, self._known, now_ms=self._now_ms, past=past)
