"""The explicit profile's state as a whole: its fields and its bytes.

Belongs here: which parts there are, and how they become bytes and are read again. Not here:
what an event does to them (`explicit`) and the parts themselves (`interests`, `orders`,
`session`, `recent`, `activity`, `consent`).

Reading costs the same whether the profile is new or full: tables and rings stay bytes and
are edited as such, orders and consent are decoded when an event concerns them.
"""

from functools import cached_property
from typing import Any, Final

import msgspec

from feature_repo.errors import ModelMismatchError
from feature_repo.user_profile import recent
from feature_repo.user_profile.activity import EMPTY, ActivityHistogram, read_histogram
from feature_repo.user_profile.compact import Key
from feature_repo.user_profile.consent import Consent, ConsentAndLinks
from feature_repo.user_profile.parts import Ids, Items, Names, Orders, Recent, Session

SCHEMA: Final = 2
"""Version of the state's layout; a change means folding the log anew."""

MAX_ENCODED_BYTES: Final = 256 * 1024
"""No profile is larger, whatever its history; one with ids of up to 20 characters stays
below 32 kB, one with numeric ids below 8 kB."""


_NOTHING: Final = msgspec.Raw(b"\xc0")


class ExplicitProfile(msgspec.Struct, array_like=True, dict=True):
    """The state. Times are epoch seconds.

    Attributes
    ----------
    version
        Number of events applied.
    first_at, last_at
        Earliest and latest event time.
    seen_at
        Latest time of an event by the user (passive types left out), 0 for none.
    late
        Events that came after one of a later time.
    anonymous
        Whether no event has named a user id.
    counts
        Events by stored type; at most `MAX_CUSTOM_TYPES` custom types, the rest as `OTHER`.
    items, categories, brands
        Interests.
    ring
        The last `MAX_RECENT` items of item events.
    seen
        Distinct items looked at, put into a cart or saved, last seen last, at most
        `MAX_SEEN`.
    refused
        Items marked not interested, at most `MAX_REFUSED`; buying or carting one lifts it.
    channels
        Events by channel, at most `MAX_CHANNELS` names, the rest as `OTHER`.
    hours
        Packed `activity`.
    packed_orders, packed_consent
        ``orders`` and ``consent_and_links`` as they were last encoded; nil before they were.
    """

    schema: int = SCHEMA
    version: int = 0
    first_at: int = 0
    last_at: int = 0
    seen_at: int = 0
    late: int = 0
    anonymous: bool = True
    counts: dict[Key, int] = {}
    channels: dict[Key, int] = {}
    items: Items = msgspec.field(default_factory=Items)
    categories: Names = msgspec.field(default_factory=Names)
    brands: Names = msgspec.field(default_factory=Names)
    ring: Recent = msgspec.field(default_factory=Recent)
    seen: Ids = msgspec.field(default_factory=Ids)
    refused: Ids = msgspec.field(default_factory=Ids)
    session: Session = msgspec.field(default_factory=Session)
    hours: bytes = EMPTY
    packed_orders: msgspec.Raw = _NOTHING
    packed_consent: msgspec.Raw = _NOTHING

    @property
    def event_count(self) -> int:
        """Number of events applied; the same number as ``version``."""
        return self.version

    @cached_property
    def orders(self) -> Orders:
        """What was bought, decoded when first asked for; changes to it are encoded."""
        return _decode_packed(_orders_decoder, self.packed_orders) or Orders()

    @cached_property
    def consent_and_links(self) -> ConsentAndLinks:
        """Consent and links, decoded when first asked for; changes to it are encoded."""
        return _decode_packed(_consent_decoder, self.packed_consent) or ConsentAndLinks()

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is known of consent and links; asked without decoding them."""
        opened = self.__dict__.get("consent_and_links")
        return self.packed_consent == _NOTHING if opened is None else opened == _NOTHING_SAID

    @property
    def consent(self) -> dict[str, Consent]:
        """What was said last, by purpose."""
        return self.consent_and_links.consent

    @property
    def linked(self) -> list[str]:
        """The anonymous ids linked last, oldest first."""
        return self.consent_and_links.linked

    @property
    def recent(self) -> list[recent.RecentItems]:
        """The last `MAX_RECENT` items of item events, oldest first, grouped by event."""
        return recent.recent_items(self.ring)

    @property
    def activity(self) -> ActivityHistogram:
        """Own events by hour and weekday."""
        return read_histogram(self.hours)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExplicitProfile) and encode(self) == encode(other)

    __hash__ = None  # type: ignore[assignment]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ExplicitProfile)
_orders_decoder = msgspec.msgpack.Decoder(Orders | None)
_consent_decoder = msgspec.msgpack.Decoder(ConsentAndLinks | None)
_NO_ORDERS: Final = Orders()
_NOTHING_SAID: Final = ConsentAndLinks()


def new() -> ExplicitProfile:
    """Return the profile of a user without events."""
    return ExplicitProfile()


def encode(profile: ExplicitProfile) -> bytes:
    """Return the profile's bytes (MessagePack); equal profiles give equal bytes."""
    opened = profile.__dict__
    if opened:
        # What was looked at and is empty has the bytes of what was never looked at.
        if "orders" in opened:
            profile.packed_orders = _pack(profile.orders, _NO_ORDERS)
        if "consent_and_links" in opened:
            profile.packed_consent = _pack(profile.consent_and_links, _NOTHING_SAID)
    return _encoder.encode(profile)


def _pack(part: Orders | ConsentAndLinks, empty: Orders | ConsentAndLinks) -> msgspec.Raw:
    return _NOTHING if part == empty else msgspec.Raw(_encoder.encode(part))


def decode(data: bytes) -> ExplicitProfile:
    """Read a profile's bytes.

    Raises
    ------
    ModelMismatchError
        If the bytes are no profile, or one of another `SCHEMA`.

    Examples
    --------
    >>> decode(encode(new())) == new()
    True
    """
    try:
        profile = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _unreadable(data) from error
    if profile.schema != SCHEMA:
        raise ModelMismatchError(
            f"the explicit profile has schema {profile.schema}, this code reads {SCHEMA}: "
            "rebuild it from the log"
        )
    return profile


def _decode_packed(decoder: msgspec.msgpack.Decoder[Any], packed: msgspec.Raw) -> Any:
    try:
        return decoder.decode(packed)
    except msgspec.DecodeError as error:
        raise _unreadable(packed) from error


def _unreadable(data: bytes | msgspec.Raw) -> ModelMismatchError:
    return ModelMismatchError(
        f"{len(memoryview(data))} bytes are no explicit profile of schema {SCHEMA}: "
        "rebuild it from the log"
    )
