"""URLs of the store that name several hosts, as Sentinel and Cluster need.

Pure parsing. Connecting is `feature_repo.online.connection`'s.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.connection import parse_url

from feature_repo.errors import InvalidSettingError


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL ``scheme[+kind]://[user:password@]host:port[,host:port…][/name[/db]][?options]``.

    Attributes
    ----------
    deployment
        ``cluster``, ``sentinel``, or nothing for one server.
    hosts
        Host and port of each node named.
    name
        Of the service behind sentinels; else empty.
    options
        User, password, db, TLS and further options, as redis-py's clients take them.
    sentinel_options
        The same for the sentinels themselves: ``sentinel_username`` and
        ``sentinel_password`` of the query, and the TLS options.

    Examples
    --------
    >>> url = StoreUrl.parse("redis+sentinel://u:p%40@a:1,[::1]/shop/3?sentinel_password=s")
    >>> url.deployment, url.hosts, url.name
    ('sentinel', (('a', 1), ('::1', 26379)), 'shop')
    >>> url.options, url.sentinel_options
    ({'username': 'u', 'password': 'p@', 'db': 3}, {'password': 's'})
    """

    deployment: str
    hosts: tuple[tuple[str, int], ...]
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    sentinel_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> "StoreUrl":
        """Read ``url``; `InvalidSettingError` if a part is missing or malformed."""
        parts = urlsplit(url)
        scheme, _, deployment = parts.scheme.partition("+")
        login, at, hosts = parts.netloc.rpartition("@")
        name, db = "", parts.path.strip("/")
        if deployment == "sentinel":
            name, _, db = db.partition("/")
        if not hosts or (deployment == "sentinel" and not name):
            raise InvalidSettingError(
                "the store's URL names no host or no service: use "
                "redis+sentinel://[user:password@]host:port,host:port/service[/db] or "
                "redis+cluster://[user:password@]host:port,host:port"
            )
        query = dict(parse_qsl(parts.query))
        own = {
            key.removeprefix("sentinel_"): query.pop(key)
            for key in ("sentinel_username", "sentinel_password")
            if key in query
        }
        try:
            options = parse_url(f"{scheme}://{login}{at}host/{db}?{urlencode(query)}")
            nodes = tuple(_host(each, 26379 if name else 6379) for each in hosts.split(","))
        except ValueError as error:
            raise InvalidSettingError(f"the store's URL cannot be read: {error}") from None
        del options["host"]
        if options.pop("connection_class", None) is not None:
            options["ssl"] = True
        tls = {key: value for key, value in options.items() if key.startswith("ssl")}
        return cls(deployment, nodes, unquote(name), options, tls | own)


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if parts.hostname is None:
        raise ValueError(f"{text[:80]!r} is no host:port")
    return parts.hostname, parts.port or port
