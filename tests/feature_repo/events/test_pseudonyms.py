"""Pseudonyms: fixed form, one per user, secret without the key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InvalidSettingError
from feature_repo.events.pseudonyms import PSEUDONYM_LENGTH, Pseudonyms, partition_of

KEY = b"0123456789abcdef"
names = st.text(min_size=1, max_size=128)


@given(name=names, partitions=st.integers(1, 1000))
def test_form(name: str, partitions: int) -> None:
    pseudonyms = Pseudonyms(KEY, partitions)
    for pseudonym in (pseudonyms.of_user(name), pseudonyms.of_anonymous(name)):
        assert len(pseudonym) == PSEUDONYM_LENGTH == len(pseudonym.encode())
        assert 0 <= partition_of(pseudonym) < partitions
        assert pseudonym.count("{") == pseudonym.count("}") == 1


@given(a=names, b=names)
def test_one_id_per_user(a: str, b: str) -> None:
    pseudonyms = Pseudonyms(KEY, 16)
    assert (pseudonyms.of_user(a) == pseudonyms.of_user(b)) == (a == b)
    assert pseudonyms.of_user(a) != pseudonyms.of_anonymous(b)
    assert pseudonyms.of_user(a) != Pseudonyms(b"another key, 16+", 16).of_user(a)


def test_partitions_are_used_evenly() -> None:
    counts = [0] * 16
    for n in range(16_000):
        counts[partition_of(Pseudonyms(KEY, 16).of_user(str(n)))] += 1
    assert 850 < min(counts) <= max(counts) < 1150


@pytest.mark.parametrize("wrong", ["", "abc", "{p01}" + "a" * 26, "{p001}" + "A" * 26, "{p001}x"])
def test_partition_of_refuses(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a pseudonym"):
        partition_of(wrong)


@pytest.mark.parametrize(("key", "partitions"), [(b"short", 16), (KEY, 0), (KEY, 1001)])
def test_settings_out_of_range(key: bytes, partitions: int) -> None:
    with pytest.raises(InvalidSettingError):
        Pseudonyms(key, partitions)


def test_load_makes_one_private_key_and_keeps_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda n: Pseudonyms.load(home, partitions=8), range(16)))
    assert len({t.key for t in several}) == 1
    assert Pseudonyms.load(home, partitions=99) == several[0]
    assert stat.S_IMODE((home / "tenant.json").stat().st_mode) == 0o600
    assert [p.name for p in home.iterdir()] == ["tenant.json"]
