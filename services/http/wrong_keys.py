"""Wrong keys: an address that sends many of them is told to wait.

Counted in the store, in one call and only after a failure; a valid key is never held back. All
clients of a load balancer may share one address, and keys are too long to be guessed at any rate:
what is spared is the work, and the noise.
"""

import ipaddress
import time
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Scope

from services.http.rate_limits import RateLimits

ADDRESS_HEADER: Final = "x-portrait-address"
"""Set by the front door of `portrait serve`, whatever the client sends."""
KEY: Final = b"portrait:wrong:"
MOST_ADDRESSES: Final = 10_000
"""Addresses whose wait a gateway remembers."""


class WrongKeys:
    """How long an address must wait after wrong keys.

    Parameters
    ----------
    per_min
        Wrong keys that an address may send at once, and a minute; 0: any number.
    behind_front
        Whether `ADDRESS_HEADER` can be trusted; else the connection's address counts.
    """

    def __init__(self, client: Any, per_min: int, *, behind_front: bool) -> None:
        self.per_min = per_min
        self._limits = RateLimits(client, per_min, prefix=KEY)
        self._behind_front = behind_front
        self._until_s = dict[str, float]()

    async def wait_s(self, scope: Scope, headers: Headers) -> float:
        """Count a wrong key; return 0, or the seconds until the next may be sent."""
        address = self._address(scope, headers)
        now_s = time.monotonic()
        left_s = self._until_s.get(address, 0.0) - now_s
        if left_s > 0:
            return left_s
        wait_s = await self._limits.wait_s(address)
        if wait_s > 0:
            if len(self._until_s) >= MOST_ADDRESSES:
                self._until_s.clear()
            self._until_s[address] = now_s + wait_s
        return wait_s

    def _address(self, scope: Scope, headers: Headers) -> str:
        given = headers.get(ADDRESS_HEADER) if self._behind_front else None
        if given is None:
            given = (scope.get("client") or ("unknown",))[0]
        return find_source(given)


def find_source(address: str) -> str:
    """Return what one sender can choose from: an address, of IPv6 the network of 64 bits.

    Examples
    --------
    >>> find_source("2001:db8::17"), find_source("192.0.2.7"), find_source("::ffff:192.0.2.7")
    ('2001:db8::/64', '192.0.2.7', '192.0.2.7')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
