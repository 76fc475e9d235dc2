"""Every operation of the API asked with no key, a wrong one, and one of each scope."""

import http.client
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from api_calls import view
from fastapi import APIRouter, Depends
from gateway_thread import Api

from services.gateway import access, application
from services.gateway.application import create_app
from services.http import api_keys, scopes
from services.settings import Settings

KEYS = {f"{scope}-key": scope for scope in api_keys.SCOPES}
OPEN = {"/health/live", "/health/ready", "/docs", "/openapi.json", "/favicon.ico",
        "/problems/invalid"}  # fmt: skip

CLOSED = ["/", "/v1", "/nowhere", "/health", "/health/", "/health/live/", "/health/other",
          "/health%2Flive", "//health/live", "/docs/x", "/docsx", "/problems/a/b", "/metrics",
          "/openapi.json/x", "/v1/users/x/profile", "/health/../v1/models"]  # fmt: skip


def operations() -> list[tuple[str, str, str]]:
    """Return method, path and declared scope of every operation."""
    return [tuple(row.split(" ")) for row in access.operations()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def keyed(make_api: Any) -> Api:
    api: Api = make_api()
    store = redis.Redis.from_url(api.url)
    for key, scope in KEYS.items():
        api_keys.register(store, key, name=scope, scope=scope)
    store.close()
    return api


def ask(api: Api, method: str, path: str, key: str | None, body: bytes = b"") -> int:
    """Send a request, its path exactly as it is written, and return the answer's status."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    try:
        connection.request(method, path, body=body, headers={"x-api-key": key} if key else {})
        return connection.getresponse().status
    finally:
        connection.close()


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def test_there_are_open_write_server_and_admin_operations() -> None:
    assert {needed for _, _, needed in operations()} == {"open", *api_keys.SCOPES}
    assert len(operations()) > 40


@pytest.mark.parametrize("row", operations(), ids=" ".join)
def test_an_operation_is_open_to_the_scopes_that_contain_its_own(
    keyed: Api, row: tuple[str, str, str]
) -> None:
    method, path, needed = row
    for verb in [method, "HEAD"] if method == "GET" else [method]:
        for key in (None, "nonsense"):
            refused = ask(keyed, verb, filled(path), key) == 401
            assert refused == (needed != "open"), (verb, key)
        for key, scope in KEYS.items():
            status = ask(keyed, verb, filled(path), key, b"{")  # 403 before the body is looked at
            may = needed == "open" or needed in api_keys.CONTAINS[scope]
            assert (status == 403) == (not may), (verb, key, status)
            assert status != 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_without_a_key_only_open_operations_answer(keyed: Api, method: str) -> None:
    """What else there is, and what there is not, cannot be told apart."""
    for path in OPEN:
        status = ask(keyed, method, path, None)
        assert (status == 401) == (method not in {"GET", "HEAD"}), path
    for path in CLOSED:
        assert ask(keyed, method, path, None) == 401, path


READS = ["return=profile", "return=%70rofile", "%72eturn=profile", "return=a&return=profile",
         "return=profile&x=1", "x=1&&return=profile", "%72%65%74%75%72%6e=%70%72ofile"]  # fmt: skip
OTHERS = ["return=profile&return=a", "RETURN=profile", "return=Profile", "return=", "return",
          "return=profile%00", "return=%2570rofile", "return+=profile"]  # fmt: skip


@pytest.mark.parametrize("query", READS + OTHERS)
def test_no_way_to_write_a_parameter_makes_a_write_key_read(keyed: Api, query: str) -> None:
    with keyed.client("write-key") as client:
        found = client.http.post(f"/v1/events?{query}", json=view("victim"))
        assert (found.status_code == 403) == (query in READS)
        assert "profile" not in orjson.loads(found.content)
    with keyed.client("server-key") as client:
        found = client.http.post(f"/v1/events?{query}", json=view("victim"))
        assert ("profile" in orjson.loads(found.content)) == (query in READS)


@pytest.mark.parametrize(
    "path",
    ["/v1/events/../users/victim/profile", "/v1/events/%2e%2e/users/victim/profile",
     "/v1/events%2F..%2Fusers%2Fvictim%2Fprofile", "//v1/users/victim/profile",
     "/v1//users/victim/profile", "/v1/users/victim/profile/", "/V1/users/victim/profile",
     "/v1/users/victim%2Fprofile", "/v1/events;/users/victim/profile",
     "/health/live/../../v1/users/victim/profile"],
)  # fmt: skip
def test_no_way_to_write_a_path_makes_a_write_key_read(keyed: Api, path: str) -> None:
    assert ask(keyed, "GET", path, None) == 401
    assert ask(keyed, "GET", path, "write-key") in {403, 404, 405}


def test_a_head_has_the_headers_of_get_and_no_body(keyed: Api) -> None:
    with keyed.client("server-key") as client:
        client.post_event(view("headed"), return_profile=True)
        for path in ("/health/live", "/v1/users/headed/profile", "/v1/users/nobody/profile"):
            whole, head = client.http.get(path), client.http.head(path)
            assert (head.status_code, head.content) == (whole.status_code, b"")
            for name in ("content-type", "content-length", "etag"):
                assert head.headers.get(name) == whole.headers.get(name)
        assert client.http.head("/health/ready").status_code == 200
        assert client.http.head("/v1/events").status_code == 405


def test_a_route_that_declares_nothing_keeps_the_service_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten = APIRouter(prefix="/v1/users")

    @forgotten.get("/{user_id}/everything")
    async def everything(user_id: str) -> str:
        return user_id

    monkeypatch.setattr(application.privacy, "router", forgotten)
    with pytest.raises(RuntimeError, match="everything declares no scope"):
        create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)


def test_the_page_has_the_table_of_calls_and_scopes() -> None:
    page = Path(__file__).parents[3] / "docs" / "security.md"
    assert access.table() in page.read_text(), "print it: python -m services.gateway.access"


def test_what_a_route_declares_last_holds() -> None:
    made = scopes.router("server", "things")

    @made.get("/things", dependencies=[scopes.needs("admin")])
    async def things() -> None: ...

    assert scopes.needs_of(made.routes[0]) == "admin"


def test_a_declaration_is_no_dependency_that_requests_solve() -> None:
    made, other = scopes.router("server", "things"), Depends(view)

    @made.get("/things", dependencies=[scopes.needs("admin"), other])
    async def things() -> None: ...

    assert made.routes[0].dependencies == [other]  # type: ignore[attr-defined]
    assert [each.call for each in made.routes[0].dependant.dependencies] == [view]  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):  # a route that would not look at it
        APIRouter().get("/things", dependencies=[scopes.needs("admin")])(things)
