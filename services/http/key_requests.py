"""Bodies of requests about API keys."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from services.http.api_keys import Scope

MAX_ORIGINS: Final = 20
MAX_OVERLAP_S: Final = 2_592_000
"""30 days."""
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9a-f:.]+")
_PORTS: Final = {"http": 80, "https": 443}


def read_moment(value: Any) -> int:
    """Return a day or an RFC 3339 time to come as epoch milliseconds.

    Examples
    --------
    >>> read_moment("9000-01-01")
    221845392000000
    """
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("no time: use a day (2027-01-01) or RFC 3339") from None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    if not datetime.now(UTC) < aware < _LATEST:
        raise ValueError("has passed, or is after the year 9998: use a time to come")
    return round(aware.timestamp() * 1000)


def read_origin(text: str) -> str:
    """Return an origin as browsers send it.

    Examples
    --------
    >>> read_origin("https://Shop.example:443")
    'https://shop.example'
    """
    told = f"{text!r} is no origin: write scheme and host, as https://shop.example"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(told) from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError(told)
    if not _HOST.fullmatch(parts.hostname) or text != text.strip():
        raise ValueError(told)
    if parts.path or parts.query or parts.fragment or not parts.hostname.isascii():
        raise ValueError(told)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port is None or port == _PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def read_name(text: str) -> str:
    """Return a name that shows on a terminal as it is."""
    if not text.isprintable() or not text.strip():
        raise ValueError("a name has no control characters, and not blanks alone")
    return text


Origin = Annotated[str, Field(max_length=255), AfterValidator(read_origin)]
Moment = Annotated[int, BeforeValidator(read_moment, json_schema_input_type=str)]


class NewKey(BaseModel):
    """A key that is wanted."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, description="Who holds it"),
        AfterValidator(read_name),
    ]
    scope: Scope
    expires_at: Annotated[
        Moment | None, Field(description="A day or an RFC 3339 time; absent: never")
    ] = None
    origins: Annotated[
        list[Origin], Field(max_length=MAX_ORIGINS, description="Pages that may use it; none: any")
    ] = []


class Rotation(BaseModel):
    """How a key is replaced by another."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[
        int,
        Field(
            strict=True,
            ge=0,
            le=MAX_OVERLAP_S,
            description="For so long the old key works on, seconds",
        ),
    ] = 86_400
