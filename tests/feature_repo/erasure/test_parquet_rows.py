"""Rows found and left out by any column of text, past row groups that cannot hold them."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.erasure.parquet_rows import count_rows, drop_owned, replace_file

NAMES = ["", "a", "b", "é", "~"]


@settings(max_examples=50)
@given(
    st.lists(st.none() | st.sampled_from(NAMES), max_size=12),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    st.sampled_from(["user", "entity"]),
    st.booleans(),
)
def test_rows_of_the_erased_are_counted_and_left_out(
    users: list[str | None], gone: set[str], kept_as: pa.DataType, column: str, known: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.parquet"
        table = pa.table(
            {column: pa.array(users, pa.string()).cast(kept_as), "n": range(len(users))}
        )
        pq.write_table(table, path, row_group_size=2, write_statistics=known)
        path.chmod(0o640)
        assert count_rows(path, gone) == sum(user in gone for user in users)
        replace_file(path, lambda table: drop_owned(table, gone))
        kept = [n for n, user in enumerate(users) if user not in gone]
        assert pq.read_table(path)["n"].to_pylist() == kept
        assert path.stat().st_mode & 0o777 == 0o640
        assert count_rows(path, gone) == 0
        assert [each.name for each in Path(folder).iterdir()] == ["some.parquet"]


@pytest.mark.parametrize("values", [[1, 2], [b"a", b"b"], [["a"], ["b"]], [1.5, None]])
def test_a_column_that_holds_no_text_names_nobody(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"user": values}), path)
    assert count_rows(path, {"a", "1"}) == 0
    assert len(drop_owned(pq.read_table(path), {"a", "1"})) == 2
