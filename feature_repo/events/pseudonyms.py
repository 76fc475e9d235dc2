"""Pseudonyms: the keyed hashes under which users' rows and events are kept.

One is ``{pNNN}`` + base32(HMAC-SHA256(tenant key, user id))[:26], always 32 characters.
The fixed length keeps the length byte in Feast's serialized key away from ``{``; the
braces make Redis Cluster put a user's row and the log of its partition into one slot.
"""

import base64
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from feature_repo.errors import InvalidSettingError

PSEUDONYM_LENGTH = 32
MAX_PARTITIONS = 1000
_PATTERN = re.compile(r"\{p(\d{3})\}[a-z2-7]{26}")


def partition_of(pseudonym: str) -> int:
    """Return the log partition a pseudonym belongs to.

    Raises
    ------
    ValueError
        If ``pseudonym`` does not have the form of one.

    Examples
    --------
    >>> partition_of("{p007}" + "a" * 26)
    7
    """
    match = _PATTERN.fullmatch(pseudonym)
    if match is None:
        raise ValueError(f"{pseudonym!r} is not a pseudonym: expected {{pNNN}} and 26 characters")
    return int(match.group(1))


def is_pseudonym(text: str) -> bool:
    """Say whether a text has the form of a pseudonym.

    Examples
    --------
    >>> is_pseudonym("{p007}" + "a" * 26), is_pseudonym("{p007}abc")
    (True, False)
    """
    return _PATTERN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """The secret key and partition count that turn user ids into pseudonyms.

    Parameters
    ----------
    key
        HMAC key, at least 16 bytes. Losing it loses the link from user ids to profiles.
    partitions
        Number of log partitions, 1 to 1000. Part of every id: fixed once data exists.

    Examples
    --------
    >>> Pseudonyms(key=b"0123456789abcdef", partitions=16).of_user("123")
    '{p012}6i4sj7afdngnyuee5u5abgyunq'
    """

    key: bytes
    partitions: int

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise InvalidSettingError(
                f"the tenant key has {len(self.key)} bytes: at least 16 are needed"
            )
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise InvalidSettingError(
                f"partitions is {self.partitions}: choose 1 to {MAX_PARTITIONS}"
            )

    def of_user(self, user_id: str) -> str:
        """Return the pseudonym of ``user_id`` (a registered user)."""
        return _hash(self.key, self.partitions, "u:" + user_id)

    def of_anonymous(self, anonymous_id: str) -> str:
        """Return the pseudonym of ``anonymous_id``; never equal to a registered user's."""
        return _hash(self.key, self.partitions, "a:" + anonymous_id)

    def of_text(self, text: str) -> str:
        """Return the hash under which a text that is not kept is known again; nobody's pseudonym.

        Examples
        --------
        >>> Pseudonyms(key=b"0123456789abcdef", partitions=16).of_text("123")[:2]
        'h:'
        """
        digest = hmac.digest(self.key, b"t:" + text.encode("utf-8", "surrogatepass"), "sha256")
        return f"h:{base64.b32encode(digest).decode().lower()[:26]}"

    @classmethod
    def load(cls, home: Path, partitions: int = 16) -> "Pseudonyms":
        """Read ``home/tenant.json``, or make it with a fresh key and ``partitions`` when absent."""
        path = home / "tenant.json"
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            body = json.dumps({"key": secrets.token_hex(32), "partitions": partitions})
            temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # fails when another process was first
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        stored = json.loads(path.read_text())
        return cls(key=bytes.fromhex(stored["key"]), partitions=int(stored["partitions"]))


def forget_ids() -> None:
    """Let go of the ids that this process has seen, which are remembered to be quick."""
    _hash.cache_clear()


@lru_cache(maxsize=65_536)
def _hash(key: bytes, partitions: int, name: str) -> str:
    digest = hmac.digest(key, name.encode(), "sha256")
    partition = int.from_bytes(digest[-4:]) % partitions
    return f"{{p{partition:03d}}}{base64.b32encode(digest).decode().lower()[:26]}"
