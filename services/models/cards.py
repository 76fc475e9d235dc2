"""Cards of models: what one was made of and how good it is, for people and for programs.

A card says what the manifest knows, what `portrait evaluate` found, and which erasures came since.
Belongs here: both forms of a card. Not here: any figure of its own.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from feature_repo.events.schema import iso
from services.models.folder import StoredModel
from services.models.registry import Aliases
from services.models.schemas import ModelCard

EVALUATIONS: Final = "evaluations"
"""Folder of what evaluations found, one file a version, below the state folder."""
_PARTS: Final = {
    "memories": "neighbours and their mixture", "live_popularity": "live popularity",
    "reranker": "reranker",
}  # fmt: skip


class ErasureDone(NamedTuple):
    """An erasure that is done: when, epoch milliseconds, and how many users it named."""

    done_ms: int
    users: int


def make_card(
    home: Path, model: StoredModel, aliases: Aliases, erasures: Sequence[ErasureDone]
) -> ModelCard:
    """Return the card of a model.

    Parameters
    ----------
    erasures
        All that are done; those before the model was made are left out.
    """
    manifest = model.manifest
    training, metrics = _mapping(manifest, "training"), _mapping(manifest, "metrics")
    since = [each for each in erasures if each.done_ms >= model.created_ms]
    files = {str(name): str(digest) for name, digest in _mapping(manifest, "files").items()}
    return {
        "name": model.name,
        "version": model.version,
        "aliases": aliases.of(model.name),
        "recipe": manifest.get("recipe"),
        "created_at": manifest.get("created_at"),
        "git_revision": manifest.get("git_revision"),
        "data": {
            name: training.get(name)
            for name in ("train_until", "validated_until", "events", "users", "items", "seed")
        },
        "features": {
            "service": manifest.get("feature_service"),
            "user_features": list(_mapping(manifest, "user_features").get("names") or ()),
            "inputs": dict(_mapping(manifest, "inputs")),
        },
        "metrics": {
            "validation_ndcg@10": metrics.get("validation"),
            "epochs": len(metrics.get("epochs") or ()),
            "test": read_evaluation(home, model.version),
        },
        "calibration": dict(_mapping(metrics, "calibration")),
        "ablations": {name: metrics.get(name) for name in _PARTS},
        "erasures_since": {
            "erasures": len(since),
            "users": sum(each.users for each in since),
            "last_at": iso(max(each.done_ms for each in since)) if since else None,
        },
        "files": files,
        "sha256": hashlib.sha256(orjson.dumps(files, option=orjson.OPT_SORT_KEYS)).hexdigest(),
    }


def keep_evaluation(home: Path, version: str, found: Mapping[str, Any]) -> None:
    """Keep what an evaluation found, for the card; that of an earlier one goes."""
    path = home / EVALUATIONS / f"{version}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))
    beside.replace(path)


def read_evaluation(home: Path, version: str) -> dict[str, Any] | None:
    """Return what the last evaluation of a version found, without baskets one by one."""
    try:
        found = orjson.loads((home / EVALUATIONS / f"{version}.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    names = ("test", "next_basket", "difference", "outcomes", "next_category")
    return {name: found[name] for name in names if name in found}


def to_markdown(card: ModelCard) -> str:
    """Return a card as Markdown."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: ModelCard) -> Iterator[str]:
    data, features, metrics = card["data"], card["features"], card["metrics"]
    yield f"# Model {card['name']}"
    yield ""
    yield from _table({
        "version": card["version"],
        "aliases": ", ".join(card["aliases"]) or "none",
        "recipe": card["recipe"],
        "made": card["created_at"] or "not said",
        "code": card["git_revision"] or "not said",
        "SHA-256 of its files": card["sha256"],
    })  # fmt: skip
    yield from ("", "## Data", "")
    yield from _table(data)
    yield from ("", "## Features", "")
    names = features["user_features"]
    yield f"Feature service {features['service'] or 'none'}, {len(names)} user features."
    if names:
        yield from ("", ", ".join(f"`{name}`" for name in names))
    yield from ("", "## Metrics", "")
    yield from _table({
        "validation NDCG@10": metrics["validation_ndcg@10"], "epochs": metrics["epochs"],
    })  # fmt: skip
    yield from _test_lines(metrics["test"])
    yield from ("", "## Calibration", "")
    yield from _flat(card["calibration"], "not calibrated")
    yield from ("", "## Ablations: what each part gained on the validation period", "")
    for name, what in _PARTS.items():
        yield f"- {what}: {_words(card['ablations'].get(name))}"
    since = card["erasures_since"]
    yield from ("", "## Erasures since it was made", "")
    if since["erasures"]:
        yield (
            f"{since['erasures']:,} of {since['users']:,} ids, the last at {since['last_at']}: it "
            "was trained with data of people who are gone. Train again."
        )
    else:
        yield "None."


def _test_lines(test: Mapping[str, Any] | None) -> Iterator[str]:
    if test is None:
        yield from ("", "Not evaluated on a test period: `portrait evaluate --since DAY` does.")
        return
    period = test.get("test", {})
    until = f"{period.get('since')} to {period.get('until')}"
    yield from ("", f"Test, {until}, {period.get('baskets')} baskets, 95 % intervals by user:", "")
    yield from ("| | NDCG@10 | recall@10 | HR@10 | MRR |", "|---|---|---|---|---|")
    for name, row in test.get("next_basket", {}).items():
        if isinstance(row, Mapping) and "ndcg@10" in row:
            cells = [
                f"{row[m]:.4f} [{row['ci'][m][0]:.4f}, {row['ci'][m][1]:.4f}]"
                for m in ("ndcg@10", "recall@10", "hr@10", "mrr")
            ]
            yield f"| {name} | " + " | ".join(cells) + " |"
    for name, row in test.get("difference", {}).items():
        low, high = row["ndcg@10"]["ci"]
        yield ""
        yield (
            f"{name} − decayed frequency, NDCG@10: {row['ndcg@10']['mean']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}]"
        )


def _table(rows: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for name, value in rows.items():
        yield f"| {name} | {_words(value)} |"


def _flat(rows: Mapping[str, Any], empty: str) -> Iterator[str]:
    if not rows:
        yield f"{empty.capitalize()}."
    for name, value in rows.items():
        yield f"- {name}: {_words(value)}"


def _words(value: Any) -> str:
    """Return a value as a card says it.

    Examples
    --------
    >>> _words({"gain": 0.01234, "used": 1.0}), _words(None), _words(1234567)
    ('gain 0.01234, used 1', 'none', '1,234,567')
    """
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items()) or "none"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = given.get(name)
    return found if isinstance(found, Mapping) else {}
