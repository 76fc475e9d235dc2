"""Rejects: the file of the rows that an import did not accept, each with its reason.

Belongs here: the file's layout. Not here: the reasons themselves (`lines`, the sources).
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


class Rejects:
    """The rows that were not accepted, written as they were read, with the reason.

    Parameters
    ----------
    path
        Parquet file to write; columns ``source_row``, ``reason``, ``kind``, ``detail`` and the
        source's own (one that has such a name already gets ``original_`` before it).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejects: pd.DataFrame, raw: pd.DataFrame) -> None:
        """Write rejects of one chunk.

        Parameters
        ----------
        rejects
            Columns ``source_row``, ``reason``, ``kind``, ``detail``.
        raw
            The chunk's rows as read, indexed by source row.
        """
        clash = {c: f"original_{c}" for c in raw.columns if c in rejects.columns}
        originals = raw.loc[rejects["source_row"]].rename(columns=clash).reset_index(drop=True)
        both = pd.concat([rejects.reset_index(drop=True), originals], axis=1)
        both.columns = both.columns.map(str)
        if self._writer is None:
            head = pa.schema(
                [("source_row", pa.int64()), ("reason", pa.string()),
                 ("kind", pa.string()), ("detail", pa.string())]
            )  # fmt: skip
            tail = pa.Schema.from_pandas(both.iloc[:, 4:], preserve_index=False).remove_metadata()
            schema = pa.schema(
                [*head, *(f if f.type != pa.null() else f.with_type(pa.string()) for f in tail)]
            )
            self._writer = pq.ParquetWriter(self.path, schema, compression="zstd")
        table = pa.Table.from_pandas(
            both, schema=self._writer.schema, preserve_index=False
        ).replace_schema_metadata()
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
