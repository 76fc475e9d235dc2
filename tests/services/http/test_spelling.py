"""Paths and queries that cannot be meant: refused by every route with parts or pages."""

import re

import pytest
from api_calls import view

from services.client import Client
from services.gateway import access

OPERATIONS = [row.split(" ")[:2] for row in access.operations()]
PAGED = [
    "/v1/erasures", "/v1/audit", "/v1/campaigns", "/v1/audiences/some/members",
    "/v1/users/u/events",
]  # fmt: skip
"""What has pages; the audience of that name is made before."""


@pytest.mark.parametrize("written", ["%ff", "a%C3", "%ed%a0%80", "%c0%af"])
@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, path in OPERATIONS if "{" in path]
)
def test_a_part_that_is_no_utf_8_is_refused(
    client: Client, method: str, path: str, written: str
) -> None:
    for name in re.findall(r"\{[a-z_]+\}", path):
        asked = re.sub(r"\{[a-z_]+\}", "x", path.replace(name, written))
        response = client.http.request(method, asked)
        assert response.status_code == 400, response.text
        told = response.json()
        assert told["type"] == "/problems/malformed"
        assert f"'{written}" in told["detail"]


def test_text_that_is_utf_8_is_read_as_it_is(client: Client) -> None:
    client.post_event(view("zoë/%ff"), return_profile=True)
    assert client.profile("zoë/%ff")["user_id"] == "zoë/%ff"


def test_a_query_that_is_no_utf_8_is_refused(client: Client) -> None:
    told = client.http.get("/v1/analytics/trends?grain=week&event_type=%ff").json()
    assert (told["status"], told["type"]) == (400, "/problems/malformed")
    assert "'event_type=%ff'" in told["detail"]
    keyless = client.http.get("/v1/models?x=%ff", headers={"authorization": ""})
    assert keyless.status_code == 401


def test_every_route_with_pages_is_asked(client: Client) -> None:
    found = client.http.get("/openapi.json").json()["paths"]
    paged = {
        path for path, methods in found.items() for said in methods.values()
        if any(one["name"] == "cursor" for one in said.get("parameters", []))
    }  # fmt: skip
    assert paged == {
        path.replace("some", "{name}").replace("/u/", "/{user_id}/") for path in PAGED
    }  # fmt: skip


@pytest.mark.parametrize("cursor", ["zzz", "er-1", "", "%00", "x" * 400, "Z!", "{p001}" + "A" * 26])
@pytest.mark.parametrize("path", PAGED)
def test_a_cursor_that_no_page_gave_is_refused(client: Client, path: str, cursor: str) -> None:
    if "some" in path:
        client.audiences.put("some", {"rule": {"event": {"type": "view_item"}}, "consent": []})
    if cursor in ("zzz", "er-1") and path == "/v1/campaigns":
        return  # names of campaigns
    response = client.http.get(f"{path}?cursor={cursor}")
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == "/query/cursor"
