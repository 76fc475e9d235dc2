"""Devices and threads: moving batches, arithmetic, and how many threads torch may use."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import torch

T = TypeVar("T")
_STAY = frozenset({"lengths"})  # packing reads lengths on the CPU


def accelerator() -> torch.device:
    """Return this machine's GPU if it has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def move(value: T, device: torch.device) -> T:
    """Return a dataclass of tensors on ``device``; other fields stay as they are."""
    if isinstance(value, torch.Tensor):
        return cast("T", value.to(device, non_blocking=True))
    if is_dataclass(value) and not isinstance(value, type):
        parts: dict[str, Any] = {
            f.name: getattr(value, f.name)
            if f.name in _STAY
            else move(getattr(value, f.name), device)
            for f in fields(value)
        }
        return cast("T", type(value)(**parts))
    return value


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return bfloat16 arithmetic on a GPU, none elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: its small operations lose by more, tenfold on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
