"""Requests as the audit notes them: read from where the application left what they were."""

from typing import Any, Final

from starlette.types import Scope

from feature_repo.events.schema import now_ms
from services.audit.recorder import EVENTS, AuditRecorder, KeyUse, is_noted
from services.http.scopes import needs_of

_TARGETS: Final = ("name", "key_id")
"""Parts of a path that say what was used, once it was there to be used: then nobody's id."""
MOST_LETTERS: Final = 128
"""A longer target is left out."""


def note_use(recorder: AuditRecorder, scope: Scope, method: str, status: int) -> None:
    """Note an answered request of a known key, if its route is of those that are noted."""
    route: Any = scope.get("route")
    state = scope["state"]
    caller = state.get("caller")
    if route is None or caller is None:
        return
    path, about = route.path, state.get("about")
    needed = needs_of(route) or ""
    read_back = path in EVENTS and about is not None  # ?return=profile
    if not read_back and not is_noted(method, path, needed, serving=recorder.serving):
        return
    parts = scope.get("path_params", {})
    target = state.get("target") or next((parts[name] for name in _TARGETS if name in parts), None)
    if not 200 <= status < 300 or (target is not None and len(target) > MOST_LETTERS):
        target = None  # what was refused may be anything, an id of somebody too
    user_id = parts.get("user_id", about)
    operation = f"{method} {path}"
    recorder.note(KeyUse(now_ms(), caller, operation, user_id, target, status, state["request_id"]))
