"""Files and folders: names of what is made of them, what cannot be read, encodings, quotes."""

import encodings.aliases
import os
from pathlib import Path

import pandas as pd
import pytest

from feature_repo import importers
from feature_repo.archive.catalogue import load_catalogue
from feature_repo.errors import InvalidSourceError
from feature_repo.importers import mapping
from feature_repo.importers.source import key_of

T = "2026-03-01T10:00:00Z"
COLUMNS = "columns: {time: t, user_id: u, item_id: i"


def load(path: Path, more: str = "", columns: str = "") -> importers.ImportReport:
    told = path.parent / "map.yaml"
    told.write_text(f"source: s\ndefault_type: view_item\n{more}{COLUMNS}{columns}}}\n")
    return importers.run("file", home=path.parent / "home", path=path, mapping=told)


def view(user: str, item: str) -> str:
    return f"{T},{user},{item}"


@pytest.mark.parametrize(
    ("name", "key"),
    [("shop.csv", "s-shop"), ("shop-2026_03.parquet", "s-shop-2026_03"), ("shop.CSV", "s-shop"),
     ("s.csv", "s"), ("shop.csv.gz", "s-shop"), ("shop.txt", "s-shop"), ("Läden.csv", "s-Läden"),
     ("a" * 64 + ".csv", "s-" + "a" * 64)],
)  # fmt: skip
def test_plain_names_keep_their_keys(name: str, key: str) -> None:
    assert key_of("s", Path("folder", name)) == key


def test_keys_tell_names_apart_and_are_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["2024.01", "2024.02", "a b.csv", "a_b.csv", "a.b.csv", "..", ".", "/", "a" * 65,
             "a" * 66, "語" * 80, "語" * 81, "a\x00"[:1] + "\udcff"]  # fmt: skip
    keys = [key_of("s" * 32, Path(name)) for name in names]
    assert len(set(keys)) == len(names)
    for key in keys:
        (tmp_path / f"{key}.parquet").touch()
    assert key_of("s", Path()) == key_of("s", tmp_path)


def test_folders_of_months_make_parts_of_their_own(tmp_path: Path) -> None:
    for month, item in (("2024.01", "A"), ("2024.02", "B")):
        (tmp_path / month).mkdir()
        (tmp_path / month / "x.csv").write_text(f"t,u,i,n\n{view('u', item)},Name\n")
        load(tmp_path / month, columns=", title: n")
    assert sorted(load_catalogue(tmp_path / "home")) == ["A", "B"]


@pytest.mark.parametrize("odd", ["linked", "gone.csv", "gone", "pipe.csv", "zREADME.md"])
def test_what_cannot_be_a_part_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    folder, other = tmp_path / "parts", tmp_path / "other"
    for each in (folder / "below", other):
        each.mkdir(parents=True)
        (each / "a.csv").write_text(f"t,u,i\n{view('u', 'A')}\n")
    place = folder / "below" / odd
    if odd == "linked":
        place.symlink_to(other)
    elif odd.startswith("gone"):
        place.symlink_to(tmp_path / "nowhere")
    elif odd.startswith("pipe"):
        os.mkfifo(place)
    else:
        place.touch()
    monkeypatch.setattr("feature_repo.importers.tabular.read_csv", None)  # nothing is read
    with pytest.raises(InvalidSourceError, match=odd):
        load(folder)
    place.rename(place.with_name("_aside"))
    monkeypatch.undo()
    (folder / "link.csv").symlink_to(other / "a.csv")
    assert load(folder).rows_in == 2


@pytest.mark.parametrize(
    "encoding", sorted({*encodings.aliases.aliases.values(), "idna", "punycode", "nul\0"})
)
def test_any_encoding_reads_or_is_refused_in_one_line(tmp_path: Path, encoding: str) -> None:
    told = tmp_path / "map.yaml"
    told.write_text(f"source: s\ndefault_type: view_item\nencoding: {encoding!a}\n{COLUMNS}}}\n")
    for number, content in enumerate((f"t,u,i\n{view('u', 'A')}\n".encode(), bytes(range(256)))):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(content)
        refused, read = None, None
        try:
            read = mapping.load_mapping(told)
            list(importers._open("file", tmp_path, path, told, keep_raw=False).chunks)
        except InvalidSourceError as error:
            refused = str(error)
        assert "\n" not in str(refused)
        assert read is None or read.encoding not in {"idna", "punycode"}


# Quotation marks

SWALLOWED = f'{T},u1,"A\n{view("u2", "B")}\n{view("u3", "C")}\n{T},u4,D"\n{view("u5", "E")}\n'


def test_a_stray_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"t,u,i\n{SWALLOWED}")
    report = load(path)
    assert (report.rows_in, dict(report.rejected)) == (5, {"malformed_csv": 1})
    assert pd.read_parquet(report.rejects_file)[["source_row", "column"]].to_numpy().tolist() == [
        [0, "i"]
    ]


def test_a_quote_that_swallows_cells_costs_its_own_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f't,u,i,n\n{T},u1,A,"N\n{T},u2,B,N\n{T},u3,C",N\n')
    report = load(path, columns=", title: n")
    assert (report.rows_in, dict(report.rejected)) == (3, {"malformed_csv": 1})


def test_text_may_have_lines_and_ids_may_end_in_one(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f't,u,i,n\n{T},u1,"A\n","two\nlines"\n')
    report = load(path, columns=", title: n")
    assert (report.rows_in, report.accepted) == (1, 1)
    assert load_catalogue(tmp_path / "home")["A"].title == "two\nlines"
