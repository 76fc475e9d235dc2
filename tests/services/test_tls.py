"""TLS and an ACL user: the whole service with a certificate and no permission too many."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, drain, event, loop
from gateway_thread import Api
from store_nodes import Node
from waiting import wait_until

from feature_repo.errors import StoreUnavailableError
from feature_repo.feast_stores import store as feast_store
from feature_repo.online.connection import connect
from feature_repo.online.live_rows import read_live
from services.event_log import dead_letters
from services.event_log.keys import log_key
from services.settings import Settings
from tests.feature_repo.feast_read import feast_versions

SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(
    SERVER is None, reason="Debian's redis-server speaks TLS, the embedded one does not"
)

PERMISSIONS = (
    "resetchannels &{p*}applied &portrait:* "
    "~{p*}* ~portrait:* ~*portrait "
    "+ping +hello +select +info +command +time +wait "
    "+cluster|slots +cluster|info +multi +exec +eval +evalsha +script|load +script|exists "
    "+publish +subscribe +unsubscribe "
    "+get +set +incrby +del +exists +expire +scan "
    "+hget +hmget +hset +hdel +hgetall +hincrby +hscan "
    "+xadd +xlen +xrange +xrevrange +xread +xtrim +xdel "
    "+sadd +sismember +smismember +smembers "
    "+zadd +zrem +zremrangebyscore +zrange +zrevrange +zcard +zincrby"
)
"""What docs/operations.md tells operators to permit."""


class Secure:
    """A server that speaks TLS only and lets in one user of few permissions."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        folder.mkdir(parents=True)
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        (folder / "users.acl").write_text(
            f"user default off\nuser portrait on >p@ss:w/rd {PERMISSIONS}\n"
        )
        self.options = (
            "--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem"),
            "--tls-ca-cert-file", str(self.authority), "--tls-auth-clients", "no",
        )  # fmt: skip
        self.node = Node(
            folder, "--aclfile", str(folder / "users.acl"), *self.options,
            binary=SERVER, tls=True,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return (
            f"rediss://portrait:p%40ss%3Aw%2Frd@127.0.0.1:{self.node.port}/0"
            f"?ssl_ca_certs={self.authority}"
        )


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    server = Secure(tmp_path / "secure")
    with server.node:
        yield server


def test_the_update_path_needs_no_more_than_documented(secure: Secure, tmp_path: Path) -> None:
    url, client = secure.url, connect(secure.url)
    placed = append(url, [event("a", "1"), event("a", "poison")])
    updater = loop(url, tmp_path / "home", Sum())
    drain(updater)
    updater._archive_once()
    updater._counters.flush(now=True)
    [row] = read_live(client, [PSEUDONYMS.of_user("a")])
    assert row is not None
    assert row.learned == b"1;"
    assert feast_versions(url, [PSEUDONYMS.of_user("a")]) == [1]
    [letter] = dead_letters.letters(client, range(PARTITIONS))
    assert dead_letters.retry(client, range(PARTITIONS)) == {letter.id: "retried"}
    updater._leases.leave()
    for forbidden in (
        client.flushall,
        lambda: client.config_get("*"),
        lambda: client.set("elsewhere", 1),
        lambda: client.publish("elsewhere", "x"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            forbidden()
    assert client.xlen(log_key(placed[0].partition)) >= 1
    client.close()


def test_the_whole_service_works_so(secure: Secure, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", redis_url=secure.url, archive_every_s=3600)
    settings.export(secure.url)
    feast_store.apply()
    api = Api(settings, secure.url)
    api.start()
    try:
        api.start_updater()
        with api.client() as client:
            wait_until(client.ready, "ready")
            client.put_item({"item_id": "B", "title": "Bread", "category": "food"})
            seen = {"type": "view_item", "user_id": "123", "items": [{"item_id": "B"}], "id": "1"}
            answer = client.post_event(seen, return_profile=True)
            assert answer["profile"]["event_count"] == 1
            assert client.events("123")["events"][0]["id"] == "1"
            assert client.recommendations("123")["degraded"] is False
            assert client.applied() == 1
    finally:
        api.stop()


def test_a_wrong_password_or_certificate_says_so(secure: Secure, tmp_path: Path) -> None:
    wrong = connect(secure.url.replace("p%40ss", "other"))
    with pytest.raises(StoreUnavailableError, match="check user, password"):
        read_live(wrong, [PSEUDONYMS.of_user("a")])
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    distrusting = connect(secure.url.replace(str(secure.authority), str(stranger)))
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        read_live(distrusting, [PSEUDONYMS.of_user("a")])
    for client in (wrong, distrusting):
        client.close()
