import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from feature_repo.errors import ModelMismatchError
from tests.training.shops import START_MS, event
from training.history.user_features import UserFeatures
from training.network.model_dir import check_features, load
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition


@pytest.fixture
def copy(model_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path, tmp_path / "models" / "one"))


def change(path: Path, key: str, value: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[key] = value
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_loaded_model_says_what_it_is(copy: Path) -> None:
    model = load(copy)
    assert model.version.startswith("fused-")
    assert model.manifest["training"]["seed"] == 7
    files = {"weights.safetensors", "vocabulary.json", "memory.safetensors"}
    assert files == set(model.manifest["files"])


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json"])
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ModelMismatchError, match=r"damaged: its SHA-256"):
        load(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "vocabulary.json").unlink()
    with pytest.raises(ModelMismatchError, match="missing"):
        load(copy)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("recipe", "transformer", "unknown"),
        ("schema", 99, "schema 99"),
        ("inputs", {}, "other inputs"),
        ("config", {"dim": 16}, "fields"),
        (
            "user_features",
            {
                "service": "ranking_v1",
                "names": ["num_views_7d"],
                "mean": [0.0],
                "deviation": [1.0],
            },
            "version",
        ),
    ],
)
def test_a_changed_manifest_is_refused(copy: Path, key: str, value: object, reason: str) -> None:
    change(copy, key, value)
    with pytest.raises(ModelMismatchError, match=reason):
        load(copy)


def test_a_model_that_reads_features_this_code_does_not_make_is_refused(copy: Path) -> None:
    """They would be read as 0 for everybody."""
    known = UserFeatures("ranking_v1", ("num_purchases_7d",), (0.0,), (1.0,))
    check_features(known, copy)
    other = UserFeatures(
        "ranking_v1", ("num_purchases_7d", "num_dreams_7d"), (0.0,) * 2, (1.0,) * 2
    )
    change(copy, "user_features", other.values())
    with pytest.raises(ModelMismatchError, match=r"reads the features num_dreams_7d, .* again"):
        load(copy)


def test_a_state_of_another_model_is_refused(model_path: Path, stacked: object) -> None:
    one, other = load(model_path), stacked
    state = LearnedTransition(one).step([None], [event("u", 1, START_MS, ["i01"])])[0]
    with pytest.raises(ModelMismatchError, match="re-encode"):
        LearnedTransition(other).step([state], [event("u", 2, START_MS, ["i01"])])  # type: ignore[arg-type]
    for broken in (b"", b"\x09\x00\x00", state[:-5], state[:40]):
        with pytest.raises(ModelMismatchError):
            Scorer(one).scores(broken, START_MS)
    assert np.isfinite(Scorer(one).scores(state, START_MS)).all()
