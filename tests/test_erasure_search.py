"""The search finds a planted marker wherever one can stand."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from erasure_search import search

MARK = "marker-7f3a"


def _parquet(path: Path) -> None:
    rows = [{"user": "u", "items": [{"note": None}, {"note": MARK}]}] * 50
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _packed_in_a_column(path: Path) -> None:
    values = [b"plain", gzip.compress(MARK.encode())]
    pq.write_table(pa.table({"record": pa.array(values)}), path)


def _write_zstd(path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(MARK.encode())


PLANTS: dict[str, Callable[[Path], object]] = {
    "plain bytes": lambda path: path.write_bytes(b"\0\1" + MARK.encode() + b"\2"),
    "nested column": _parquet,
    "array of text": lambda path: np.savez(path.with_suffix(".npz"), users=np.array(["a", MARK])),
    "compressed array": lambda path: np.savez_compressed(path.with_suffix(".npz"), x=[MARK]),
    "gzip": lambda path: path.write_bytes(gzip.compress(MARK.encode())),
    "gzip from a column": _packed_in_a_column,
    "name of a file": lambda path: path.with_name(f"{MARK}.log").touch(),
    "zstd": _write_zstd,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_marker_is_found(plant: str, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "deep"
    folder.mkdir(parents=True)
    PLANTS[plant](folder / "some.file")
    assert len(search(tmp_path, [MARK])) == 1
    assert search(tmp_path, ["marker-0000"]) == []
