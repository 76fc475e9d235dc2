"""Credentials: where the key of a request stands.

Belongs here: reading the key from a request's head. Whose it is, `api_keys` says.
"""

import base64
import binascii
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.types import Scope

BEACONS: Final = frozenset({"/v1/events", "/v1/events/batch"})
"""Where a page that is being left may send to: ``sendBeacon`` sets no header."""
BEACON_TYPE: Final = b"text/plain"


def read_key(headers: Headers) -> str | None:
    """Return the key that the headers name; None if they name none.

    Examples
    --------
    >>> read_key(Headers({"authorization": "Bearer k"})), read_key(Headers({"x-api-key": "k"}))
    ('k', 'k')
    >>> read_key(Headers({"authorization": "Basic azo="}))  # the user name, as some SDKs send it
    'k'
    """
    way, _, given = headers.get("authorization", "").partition(" ")
    if way.lower() == "bearer":
        return given.strip() or None
    if way.lower() == "basic":
        try:
            return base64.b64decode(given.strip(), validate=True).decode().partition(":")[0] or None
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    return headers.get("x-api-key") or None


def take_beacon_key(scope: Scope, headers: Headers) -> str | None:
    """Return the key of a beacon, out of its query; None if the request is no beacon.

    The key is taken from the query, so that nothing behind this sees it, and the body counts as
    the JSON that it is.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if scope["method"] != "POST" or scope["path"] not in BEACONS or media != BEACON_TYPE.decode():
        return None
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    keys = [value for name, value in pairs if name == "key"]
    if len(keys) != 1:
        return None
    others = [pair for pair in pairs if pair[0] != "key"]
    scope["query_string"] = urlencode(others).encode("latin-1")
    scope["headers"] = [
        (name, b"application/json" if name == b"content-type" else value)
        for name, value in scope["headers"]
    ]
    return keys[0] or None
