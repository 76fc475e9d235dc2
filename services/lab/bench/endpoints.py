"""Endpoints that the bench `api` asks: every GET of the service's own description, and what ranks.

Belongs here: requests made of paths, users and items. Not here: sending and timing (`api`).
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import orjson

from feature_repo.archive.catalogue import load_catalogue
from services.client import Client

NAME: Final = "bench"
_OTHER: Final = "bench-other"
_SKIPPED: Final = frozenset({"/v1/audiences/changes"})  # a stream, 20 s long
_RULE: Final = {"event": {"type": "purchase", "count": {"gte": 3}, "within": "91d"}}
_QUERIES: Final = {
    "/v1/audiences/overlap": f"?names={NAME},{_OTHER}",
    "/v1/receipts": "?after=p000-1-0",
    "/v1/users/{user_id}/explanations": "?target=item:{known}",
}
"""What endpoints demand besides."""
_MORE: Final = {
    "/v1/users/{user_id}/recommendations": ("?explain=true", "?diversity=0.3", "?n=100"),
}
"""Questions that cost otherwise than the plain one."""
_SEVERAL: Final = ("{user_id}", "{item_id}", "{known}", "{other}")
_POSTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/audiences/preview": {"rule": {"all": [_RULE, {"not": {"event": {"within": "28d"}}}]}},
    "/v1/rank": {"user_id": "{user_id}", "items": ["{known}", "{other}"]},
    "/v1/recommendations": {
        "user_id": "{user_id}", "events": [{"items": [{"item_id": "{other}"}]}]
    },
}  # fmt: skip

Request = tuple[str, str, bytes | None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Method and path, as a name; and requests, each of another user or item."""

    name: str
    requests: list[Request]


class ShopSample:
    """Users of the shop, items that the model knows, and items that only the catalogue has.

    Each is used once, in a shuffled but fixed order, until all are.
    """

    def __init__(self, users: Iterable[str], known: Iterable[str], others: Iterable[str]) -> None:
        self._users, self._known, self._others = map(_shuffle, (users, known, others))

    @classmethod
    def of(cls, home: Path) -> Self:
        """Return those of a demo's state folder."""
        from services.models.folder import newest
        from training.network.model_dir import load

        with (home / "replay.ndjson").open("rb") as lines:
            users = {user for line in lines if (user := orjson.loads(line).get("user_id"))}
        listed = {item for item, each in load_catalogue(home).items() if each.is_merchandise}
        model = newest(home)
        known = listed if model is None else listed.intersection(load(model.path).vocabulary.items)
        return cls(users, known or listed, listed - known or listed)

    def next(self) -> dict[str, str]:
        """Return what stands in the places of a path or a body."""
        known = next(self._known)
        return {
            "{user_id}": next(self._users), "{item_id}": known, "{known}": known,
            "{other}": next(self._others), "{name}": NAME, "{plot}": "arms",
        }  # fmt: skip


def prepare(client: Client) -> None:
    """Make the audiences and the campaign that endpoints name."""
    client.audiences.put(NAME, {"rule": _RULE, "consent": []})
    client.audiences.put(_OTHER, {"rule": {"event": {"type": "purchase"}}, "consent": []})
    client.campaigns.put(NAME, {
        "audience": NAME, "offer": {"id": "o", "cost": 0.05}, "channel": "email",
        "window": {"from": "2017-01-01", "until": "2099-01-01"},
    })  # fmt: skip


def endpoints_of(description: Mapping[str, Any], sample: ShopSample, cold: int) -> list[Endpoint]:
    """Return every GET of an OpenAPI description, and what ranks, each with up to ``cold`` users.

    No two are asked of the same user or item while there are others.
    """
    questions = [("GET", "/v1/items/{other}/similar", b"")]
    questions += [
        ("GET", path + query, b"")
        for path, operations in description["paths"].items()
        if "get" in operations and path not in _SKIPPED
        for query in (_QUERIES.get(path, ""), *_MORE.get(path, ()))
    ]
    questions += [("POST", path, orjson.dumps(body)) for path, body in _POSTS.items()]
    found = []
    for method, path, body in questions:
        several = any(name in path + body.decode() for name in _SEVERAL)
        requests = [_fill(sample, method, path, body) for _ in range(cold if several else 1)]
        found.append(Endpoint(f"{method} {path}", requests))
    return found


def _fill(sample: ShopSample, method: str, path: str, body: bytes) -> Request:
    values = sample.next()
    for name, value in values.items():
        path = path.replace(name, quote(value, safe=""))
        body = body.replace(name.encode(), orjson.dumps(value)[1:-1])
    return method, path, body or None


def _shuffle(names: Iterable[str]) -> Iterator[str]:
    ordered = sorted(names)
    random.Random(0).shuffle(ordered)  # noqa: S311 - no secret
    return itertools.cycle(ordered)
