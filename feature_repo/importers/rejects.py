"""Rejects: the file of the rows that an import did not accept, each with its reason.

Belongs here: the file's layout. Not here: the reasons themselves (`lines`, the sources).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.erasure.raw_ids import RawIds

COLUMNS: Final = ("source_row", "reason", "kind", "column", "detail")


class Rejects:
    """The rows that were not accepted: number, reason, and the column at fault.

    Parameters
    ----------
    path
        Parquet file to write, for its owner only; columns `COLUMNS`, and ``row`` where rows are
        kept.
    keep_raw
        Whether the row itself is written too, as JSON. It holds what the shop's file holds: raw
        user ids, everything.
    raw_ids
        Knows the erased, whose rows are not written.
    """

    def __init__(self, path: Path, *, keep_raw: bool, raw_ids: RawIds | None = None) -> None:
        self.path, self.keep_raw, self._raw_ids = path, keep_raw, raw_ids
        names = [*COLUMNS[1:], "row"] if keep_raw else COLUMNS[1:]
        self._schema = pa.schema(
            [("source_row", pa.int64()), *((name, pa.string()) for name in names)]
        )
        path.touch(mode=0o600)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, rejects: pd.DataFrame, raw: Callable[[int], str | None]) -> None:
        """Write rejects of one chunk.

        Parameters
        ----------
        rejects
            The columns `COLUMNS`.
        raw
            Returns a row by number as JSON.
        """
        if self.keep_raw:
            rows = [self._allow(raw(row)) for row in rejects["source_row"]]
            rejects = rejects.assign(row=pd.Series(rows, index=rejects.index, dtype=object))
        plain = rejects[self._schema.names].astype(object)
        columns = {n: plain[n].where(plain[n].notna(), None).tolist() for n in plain}
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def _allow(self, row: str | None) -> str | None:
        named = row is not None and self._raw_ids is not None and self._raw_ids.stand_in(row)
        return None if named else row

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
