"""Minimisation: what of an event a shop does not keep, or keeps hashed, before it is kept anywhere.

One function changes an event's record before it enters the log or the archive: fields that a
setting names are dropped or hashed, then what looks like somebody's data in the rest is refused or
hashed. Equal values have equal hashes, made with the tenant's key as pseudonyms are. Not here: what
personal data look like (`personal_data`).
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from feature_repo.events.fields import MAX_PROPERTIES_BYTES, SET_ASIDE
from feature_repo.events.personal_data import find_email_or_phone, may_hold
from feature_repo.events.personal_walk import TERMS, PersonalWalk, Refusal, refuse
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import Event, EventRecord
from feature_repo.events.types import find_types

Treatment = Literal["off", "reject", "hash"]
IdTreatment = Literal["allow", "reject"]

OURS: Final = frozenset({TERMS, SET_ASIDE})
"""Properties that Portrait reads: until when a grant holds, and amounts in other currencies."""
_TEXTS: Final = ("url", "query")
_IDS: Final = ("user_id", "anonymous_id", "id", "session_id", "order_id")
_PROPERTY: Final = "properties."
_STATING: Final = find_types("consent")
_MAX_TEXT: Final = 2048
_HASH: Final = re.compile(r"h:[a-z2-7]{26}")


@dataclass(frozen=True, slots=True)
class FieldPolicy:
    """What is done to which fields of events.

    Attributes
    ----------
    dropped, hashed
        Names as `parse_fields` returns them.
    texts
        What becomes of personal data in ``url``, ``query`` and properties.
    ids
        Whether ids may look like an e-mail address or a phone number. None is ever hashed: an id
        that was changed would be another's.
    """

    dropped: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()
    texts: Treatment = "off"
    ids: IdTreatment = "allow"


def parse_fields(listed: str) -> frozenset[str]:
    """Return the fields that a setting names, separated by commas.

    Raises
    ------
    ValueError
        If one cannot be left out.

    Examples
    --------
    >>> sorted(parse_fields("url, properties.phone"))
    ['properties.phone', 'url']
    """
    names = frozenset(name.strip() for name in listed.split(",") if name.strip())
    for name in sorted(names):
        own = name.removeprefix(_PROPERTY)
        if name not in _TEXTS and (not own or own == name):
            raise ValueError(f"{name!r} is no field of the list: name url, query, properties.NAME "
                             "or properties.*")  # fmt: skip
        if own in OURS:
            raise ValueError(f"{name!r} is read by Portrait itself: name another property")
    return names


class Minimiser:
    """Changes records before they are kept.

    Parameters
    ----------
    policy
        What the shop's settings say.
    pseudonyms
        Have the key of the hashes.
    """

    def __init__(self, policy: FieldPolicy, pseudonyms: Pseudonyms) -> None:
        self._policy, self._pseudonyms = policy, pseudonyms
        self._listed = bool(policy.dropped or policy.hashed)
        self._named = [
            name for name in policy.dropped | policy.hashed if name.startswith(_PROPERTY)
        ]
        self.is_idle = policy == FieldPolicy()

    def apply(self, event: Event, record: EventRecord) -> Refusal | None:
        """Minimise the record that was made of an event, in place; say why it is not to be taken.

        Examples
        --------
        >>> from feature_repo.events.schema import to_record
        >>> made = Pseudonyms(key=b"0123456789abcdef", partitions=16)
        >>> event = Event(type="search", user_id="7", query="mail to jo@shop.example", time=0)
        >>> record = to_record(event, made, 0)
        >>> Minimiser(FieldPolicy(texts="hash"), made).apply(event, record)
        >>> record.query
        'mail to h:ufvj6km2xo46x32sxg7nguuq7c'
        >>> Minimiser(FieldPolicy(texts="reject"), made).apply(event, to_record(event, made, 0))
        Refusal(pointer='/query', detail='looks like an e-mail address: send the event without it')
        """
        if self.is_idle:
            return None
        if self._policy.ids == "reject":
            for name in _IDS:
                likeness = find_email_or_phone(getattr(event, name) or "")
                if likeness is not None:
                    return refuse(f"/{name}", likeness)
        if self._listed:
            self._apply_lists(record)
        return None if self._policy.texts == "off" else self._apply_detector(record)

    def _apply_lists(self, record: EventRecord) -> None:
        for name in _TEXTS:
            value = getattr(record, name)
            if value is None:
                continue
            if name in self._policy.dropped:
                setattr(record, name, None)
            elif name in self._policy.hashed:
                setattr(record, name, self._hash(value))
        # What a statement about consent says stands in its properties.
        if self._named and record.properties and record.type not in _STATING:
            kept = dict[str, Any]()
            for name, value in record.properties.items():
                is_ours = name == SET_ASIDE or (name == TERMS and record.consent is not None)
                how = None if is_ours else self._listed_as(name)
                if how != "dropped":
                    kept[name] = self._hash(value) if how == "hashed" else value
            record.properties = kept or None

    def _listed_as(self, name: str) -> str | None:
        for field in (_PROPERTY + name, _PROPERTY + "*"):  # its own name says more than the star
            if field in self._policy.dropped:
                return "dropped"
            if field in self._policy.hashed:
                return "hashed"
        return None

    def _apply_detector(self, record: EventRecord) -> Refusal | None:
        walk = PersonalWalk(self._pseudonyms.of_text, keep=self._policy.texts == "reject")
        if record.url is not None and may_hold(record.url):
            record.url = _bound(walk.text(record.url, ("url",), is_url=True), self._hash)
        if record.query is not None and may_hold(record.query):
            record.query = _bound(walk.text(record.query, ("query",)), self._hash)
        # What is looked through at once mostly holds nothing: that takes a tenth of the time.
        if record.properties and may_hold(orjson.dumps(record.properties).decode()):
            before = record.properties
            stated = record.type in _STATING or record.consent is not None
            record.properties = walk.properties(before, is_stating=stated)
            if record.properties != before and _measure(record.properties) > MAX_PROPERTIES_BYTES:
                record.properties = self._hash_whole(before, record.properties)
                size = _measure(record.properties)
                if size > MAX_PROPERTIES_BYTES:
                    detail = f"take {size} bytes with personal data hashed: at most"
                    return Refusal("/properties", f"properties {detail} {MAX_PROPERTIES_BYTES}")
        return walk.refusal

    def _hash_whole(self, sent: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
        """Return properties whose values that held something, and grew by it, are hashes."""
        whole = dict[str, Any]()
        for (name, value), old in zip(kept.items(), sent.values(), strict=True):
            is_hash = isinstance(value, str) and _HASH.fullmatch(value) is not None
            whole[name] = value if value == old or is_hash or name == TERMS else self._hash(old)
        return whole

    def _hash(self, value: Any) -> Any:
        """Return the hash of a value; of one, and of nothing, itself: events come in again."""
        if value is None or (isinstance(value, str) and _HASH.fullmatch(value) is not None):
            return value
        if isinstance(value, str):
            return self._pseudonyms.of_text(value)
        return self._pseudonyms.of_text(orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())


def _bound(text: str, hash_text: Any) -> Any:
    return text if len(text) <= _MAX_TEXT else hash_text(text)


def _measure(properties: dict[str, Any]) -> int:
    return len(orjson.dumps({k: v for k, v in properties.items() if k != SET_ASIDE}))
