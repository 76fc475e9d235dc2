"""No code that nobody calls: vulture finds names that are never read."""

import ast
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parent.parent
CALLED_BY_LIBRARIES = [
    "@*.command*", "@*.get", "@*.post", "@*.put", "@*.patch", "@*.delete", "@*.middleware",
    "@*.exception_handler", "@field_validator", "@on_field", "@model_validator",
]  # fmt: skip
"""Decorators that hand a function to FastAPI, Typer or Pydantic."""
READ_BY_LIBRARIES = [
    "model_config",  # Pydantic
    "forward",  # torch
    "training_v1", "ranking_v1", "ranking_items_v1", "profile_v1",  # Feast, of definitions.py
    "ArrowEngineConfig", "ArrowEngine", "AtomicRegistryStore",  # Feast, of feature_store.yaml
    "PortraitOfflineStoreConfig", "PortraitOfflineStore",
    "PortraitOnlineStoreConfig", "PortraitOnlineStore",
    "full_scan_for_deletion", "_get_client_async", "online_write_batch_async",  # Feast's classes
    "delete_entity_values", "_to_df_internal", "_write_registry", "version_id",
    "pack_command", "discover_master",  # redis-py
    "flatten_mapping",  # PyYAML
    "check_health",  # Ray Serve
    "trace",  # Python, of __exit__
    "resolve_ip_for_localhost", "SummaryWriter", "nprobe",  # Ray, RecBole, faiss
]  # fmt: skip
"""Names that a library reads: of subclasses, of modules that it loads, or set on its objects."""
READ_BY_OTHERS = [
    "read_user",  # what the store holds of a user, for tests and notebooks
    "duplicate", "viewed", "violations",  # what a test looks at
    "Erased", "Removal", "erase_files",  # what both halves of an erasure say
]  # fmt: skip
CALLED_BY_OTHERS = "services/client/"
"""The client's calls are for whoever has a service."""


def fields(path: Path) -> set[int]:
    """Return the lines of a class's fields: what has them is read whole, as JSON or as a row."""
    return {
        each.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.AnnAssign)
    }


def dead(folders: list[Path]) -> list[str]:
    vulture = Vulture(
        ignore_names=READ_BY_LIBRARIES + READ_BY_OTHERS, ignore_decorators=CALLED_BY_LIBRARIES
    )
    vulture.scavenge([str(folder) for folder in folders])
    return [
        f"{item.filename}:{item.first_lineno} {item.name}"
        for item in vulture.get_unused_code(min_confidence=60)
        if item.first_lineno not in fields(Path(item.filename))
        and CALLED_BY_OTHERS not in Path(item.filename).as_posix()
    ]


def test_no_code_is_dead() -> None:
    assert dead([ROOT / room for room in ("feature_repo", "training", "services")]) == []


def test_dead_code_is_seen(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(
        "class A:\n    held: int\n\n    def called(self): ...\n\ndef left(): A().called()\n"
    )
    assert [line.split()[-1] for line in dead([tmp_path])] == ["left"]
