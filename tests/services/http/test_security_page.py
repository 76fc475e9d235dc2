"""The calls that docs/security.md shows run, and answer what it says."""

import os
import re
import subprocess
from pathlib import Path

from gateway_thread import ADMIN_KEY, Api

PAGE = Path(__file__).parents[3] / "docs" / "security.md"


def blocks() -> list[str]:
    return re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_its_calls_answer_what_it_says(api: Api) -> None:
    shown = blocks()
    assert len(shown) == 1
    commands = [part.split("\n") for part in re.split(r"^\$ ", shown[0], flags=re.MULTILINE)[1:]]
    script, said = list[str](), list[str]()
    for lines in commands:
        end = next(n for n, line in enumerate(lines) if not line.endswith("\\")) + 1
        script += lines[:end]
        said += [line for line in lines[end:] if line]
    asked = {"URL": f"http://127.0.0.1:{api.port}", "KEY": ADMIN_KEY, "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        env=asked, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == said
    assert len(said) == 5
