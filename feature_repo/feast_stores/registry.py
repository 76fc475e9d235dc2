"""Feast's registry file, replaced as a whole: a reader never meets a half-written one."""

import os
import uuid
from datetime import UTC, datetime
from typing import Any

from feast.infra.registry.file import FileRegistryStore


class AtomicRegistryStore(FileRegistryStore):  # type: ignore[misc]
    """Feast's file registry, but written to a temporary file, synced and renamed."""

    def _write_registry(self, registry_proto: Any) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        path = self._filepath
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(registry_proto.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
