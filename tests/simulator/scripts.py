"""The product's scripts by their digests: for the trace, and for faults that are aimed."""

from feature_repo.online import live_rows
from services.event_log import archiver, writer
from services.update import lease
from simulator.server import Command

_NAMES = {
    script.digest.encode(): name
    for name, script in {
        "append": writer.APPEND, "commit": live_rows._COMMIT,
        "replace": live_rows._REPLACE, "link": writer.LINK, "look": archiver._LOOK,
        "claim": archiver._CLAIM, "finish": archiver._FINISH, "take": lease._TAKE,
        "free": lease._FREE, "release": lease._RELEASE, "beat": lease._BEAT,
    }.items()
}  # fmt: skip


def script_name(command: Command) -> str:
    """Return which script a command calls by its digest, or the empty string."""
    return _NAMES.get(command[1], "") if command[0] == b"EVALSHA" else ""


def shown(command: Command) -> str:
    """Return the beginning of a command, as a trace has it."""
    name = script_name(command)
    words = [name.encode(), *command[3:]] if name else command
    return b" ".join(each[:40] for each in words[:6]).decode(errors="replace")
