"""Batch features of a user, as the gateways read them from Feast's online store.

`read` asks Feast. `fields` and `decode` are the same by hand, for a request that reads the live
row anyway: Feast keeps all views of an entity in one hash, so one command brings both, where
Feast's own read takes the time of a whole request.
"""

import struct
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog

from feature_repo.errors import PortraitError
from feature_repo.online.live_row import LIVE_VIEW, field_key

_DOUBLE, _INT64 = 0x29, 0x20  # field 5 in 8 bytes, field 4 as varint
_as_double: Final = struct.Struct("<d").unpack_from
_REST_S: Final = 5.0  # after a failure, how long requests go without instead of waiting again

_log = structlog.get_logger(__name__)


class UserFeatureReader:
    """Reads feature services for one user; answers None when they cannot be had.

    A registry that was never applied or a store that is away costs a profile its batch part,
    not its answer.
    """

    def __init__(self) -> None:
        self._store: Any = None
        self._rest_until_s = 0.0
        # service -> feature name, hash field and Feast's type of each feature
        self._layouts: dict[str, list[tuple[str, bytes, Any]]] = {}

    def open(self) -> None:
        """Open Feast's store; needs PORTRAIT_HOME and PORTRAIT_REDIS_URL in the environment."""
        from feature_repo.feast_stores.store import open_store

        try:
            self._store = open_store()
            self._layouts = {
                service.name: [
                    (feature.name, field_key(view.name, feature.name), feature.dtype)
                    for view in service.feature_view_projections
                    if view.name != LIVE_VIEW
                    for feature in view.features
                ]
                for service in self._store.list_feature_services()
            }
        except Exception as error:  # noqa: BLE001 - Feast raises many kinds; all mean "without"
            _log.warning("features_unavailable", error=type(error).__name__)

    def fields(self, service: str) -> list[bytes]:
        """Return the fields of a user's hash that hold the batch features of ``service``."""
        return [field for _, field, _ in self._layouts.get(service, ())]

    def decode(self, service: str, values: Sequence[bytes | None]) -> dict[str, Any] | None:
        """Return what `read` would of the values of `fields`, the live view's left out."""
        layout = self._layouts.get(service)
        if layout is None:
            return None
        return {
            name: None if not value else _number(value) or _python(value, dtype)
            for (name, _, dtype), value in zip(layout, values, strict=True)
        }

    async def read(self, pseudonym: str, service: str) -> dict[str, Any] | None:
        """Return the features of ``service`` for one user, or None."""
        if self._store is None or time.monotonic() < self._rest_until_s:
            return None
        from feature_repo.feast_stores.store import read_user_async

        try:
            return await read_user_async(self._store, pseudonym, service)
        except Exception as error:  # noqa: BLE001
            self._rest_until_s = time.monotonic() + _REST_S
            reason = str(error) if isinstance(error, PortraitError) else type(error).__name__
            _log.warning("features_unread", service=service, error=reason)
            return None


def decode_value(value: bytes) -> Any:
    """Return the Python value of a feature as Feast's online store holds it."""
    found = _number(value)
    if found is not None:
        return found
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type

    return feast_value_type_to_python_type(Value.FromString(value))


def _number(value: bytes) -> float | int | None:
    """Return a number as Feast's ``Value`` holds it; None if it is none of the plain ones.

    By hand: of what a request reads, most are such numbers, and protobuf takes longer for them
    than the store does.
    """
    head, size = value[0], len(value)
    if head == _DOUBLE and size == 9:
        return float(_as_double(value, 1)[0])
    if head == _INT64 and size == 2 and value[1] < 0x80:
        return value[1]
    return None


def _python(value: bytes, dtype: Any) -> Any:
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type

    return feast_value_type_to_python_type(Value.FromString(value), dtype.to_value_type())
