"""RecBole's GRU4Rec as a peer of the training bench, in a throw-away environment.

RecBole 1.2.1 (Zhao et al., "RecBole: Towards a Unified, Comprehensive and Efficient Framework
for Recommendation Algorithms", CIKM 2021) with full cross-entropy, sequences of 50, batches of
256, width 64, one thread. It makes one sequence of each event's past, where the training loop
here reads a whole history once. The environment sees this one's packages, torch among them, and
adds RecBole to them.
"""

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import orjson

from feature_repo.errors import PortraitError
from training.lab.comparison.shop import Shop
from training.lab.studies import recbole_gru4rec

PACKAGES: Final = (
    "recbole==1.2.1",
    "colorlog==6.10.1",
    "texttable==1.7.0",
    "thop==0.1.1.post2209072238",
)


def events_per_s(shop: Shop, *, rounds: int, seconds: float) -> list[float]:
    """Return events predicted and learned from in a second, in each round.

    Parameters
    ----------
    shop
        Its training period is read.

    Raises
    ------
    PortraitError
        If RecBole cannot be installed, or stops.
    """
    with TemporaryDirectory(prefix="portrait-recbole-") as name:
        folder = Path(name)
        python = _environment(folder / "venv")
        _write(shop, folder / "films")
        script = str(Path(recbole_gru4rec.__file__))
        done = _run([str(python), script, str(folder), str(rounds), str(seconds)])
    found: list[float] = orjson.loads(done.splitlines()[-1])
    return found


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "portrait.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    python = folder / "bin" / "python"
    pip = ["-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--ignore-installed"]
    _run([str(python), *pip, *PACKAGES])
    return python


def _write(shop: Shop, folder: Path) -> None:
    """Write the training period as RecBole's atomic file."""
    folder.mkdir()
    histories = shop.histories
    line = np.flatnonzero(np.repeat(shop.trained, np.diff(histories.lines)))
    event = np.repeat(np.arange(len(histories.time_ms)), np.diff(histories.lines))[line]
    rows = zip(
        shop.owner[event].tolist(), histories.item[line].tolist(),
        histories.time_ms[event].tolist(), strict=True,
    )  # fmt: skip
    with (folder / "films.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{user}\t{item}\t{time_ms}\n" for user, item, time_ms in rows)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PortraitError(f"{' '.join(command[:5])} …: {done.stderr.strip()[-300:]}")
    return done.stdout
