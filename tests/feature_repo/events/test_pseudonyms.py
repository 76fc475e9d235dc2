"""Entity ids: fixed form, one per user, secret without the key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InvalidSettingError
from feature_repo.events.pseudonyms import ENTITY_ID_LENGTH, Tenant, partition_of

KEY = b"0123456789abcdef"
names = st.text(min_size=1, max_size=128)


@given(name=names, partitions=st.integers(1, 1000))
def test_form(name: str, partitions: int) -> None:
    tenant = Tenant(KEY, partitions)
    for entity in (tenant.entity(name), tenant.anonymous(name)):
        assert len(entity) == ENTITY_ID_LENGTH == len(entity.encode())
        assert 0 <= partition_of(entity) < partitions
        assert entity.count("{") == entity.count("}") == 1


@given(a=names, b=names)
def test_one_id_per_user(a: str, b: str) -> None:
    tenant = Tenant(KEY, 16)
    assert (tenant.entity(a) == tenant.entity(b)) == (a == b)
    assert tenant.entity(a) != tenant.anonymous(b)
    assert tenant.entity(a) != Tenant(b"another key, 16+", 16).entity(a)


def test_partitions_are_used_evenly() -> None:
    counts = [0] * 16
    for n in range(16_000):
        counts[partition_of(Tenant(KEY, 16).entity(str(n)))] += 1
    assert 850 < min(counts) <= max(counts) < 1150


@pytest.mark.parametrize("wrong", ["", "abc", "{p01}" + "a" * 26, "{p001}" + "A" * 26, "{p001}x"])
def test_partition_of_refuses(wrong: str) -> None:
    with pytest.raises(ValueError, match="not an entity id"):
        partition_of(wrong)


@pytest.mark.parametrize(("key", "partitions"), [(b"short", 16), (KEY, 0), (KEY, 1001)])
def test_settings_out_of_range(key: bytes, partitions: int) -> None:
    with pytest.raises(InvalidSettingError):
        Tenant(key, partitions)


def test_load_makes_one_private_key_and_keeps_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        tenants = list(pool.map(lambda n: Tenant.load(home, partitions=8), range(16)))
    assert len({t.key for t in tenants}) == 1
    assert Tenant.load(home, partitions=99) == tenants[0]
    assert stat.S_IMODE((home / "tenant.json").stat().st_mode) == 0o600
    assert [p.name for p in home.iterdir()] == ["tenant.json"]
