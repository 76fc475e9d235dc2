"""Training sets: one row a position, in order, features from before and labels from after."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from retold import told

from feature_repo.errors import NotFoundError, PointInTimeError
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots
from tests.feature_repo import oracle, shop_log
from tests.feature_repo.fixed_shop import LOG
from training.history import dataset

AS_OF = shop_log.START + timedelta(days=100)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = shop_log.write(tmp_path_factory.mktemp("home"), LOG)
    snapshots.build(made, until=AS_OF)
    return made


def purchases(user: str) -> list[int]:
    mine = told([e for e in LOG if e.user == user])
    return [each.event.time_ms for each in mine if each.is_new]


def test_labels_look_only_ahead_and_only_where_the_data_reaches(home: Path) -> None:
    found = dataset.positions(home, until=AS_OF)
    cut_ms = AS_OF.timestamp() * 1000
    assert len(found) == sum(t < cut_ms for user in shop_log.USERS for t in purchases(user))
    for row in found.itertuples():
        at = int(row.event_timestamp.timestamp() * 1000)
        later = [t for t in purchases(row.user) if at < t < cut_ms]
        gap = (min(later) - at) / shop_log.DAY_MS if later else None
        for days, label in ((7, row.purchase_7d), (28, row.purchase_28d)):
            if gap is not None and gap <= days:
                assert label == 1
            elif at + days * shop_log.DAY_MS <= cut_ms:
                assert label == 0
            else:
                assert pd.isna(label)
        assert (gap is None) == pd.isna(row.days_to_next_purchase)
    assert set(found.purchase_7d.dropna()) == {0, 1}
    assert found.purchase_28d.isna().any()


def test_an_order_told_again_is_no_position_and_no_purchase(tmp_path: Path) -> None:
    user, day = shop_log.USERS[0], shop_log.DAY_MS
    log = [
        EventRecord(id=f"e{n}", type="purchase", user=user, order_id=order, received_ms=0,
                    time_ms=shop_log.START_MS + at * day, items=[ItemRecord("A")])
        for n, (order, at) in enumerate([("a", 0), ("a", 1), ("b", 20), ("a", 21), ("", 60)])
    ]  # fmt: skip
    found = dataset.positions(shop_log.write(tmp_path, log), until=AS_OF)
    assert list(found.event_id) == ["e0", "e2", "e4"]
    assert list(found.purchase_7d[:2]) == [0, 0]
    assert list(found.days_to_next_purchase[:2]) == [20, 40]


def test_since_bounds_positions_not_labels(home: Path) -> None:
    since = shop_log.START + timedelta(days=40)
    whole = dataset.positions(home, until=AS_OF)
    part = dataset.positions(home, since=since, until=AS_OF)
    kept = whole[whole.event_timestamp >= pd.Timestamp(since)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, kept)


def test_rows_keep_number_and_order_and_equal_the_oracle(home: Path, monkeypatch: Any) -> None:
    from feast.infra.offline_stores.ibis import IbisRetrievalJob

    real = IbisRetrievalJob.to_df  # a join may return its rows in any order
    monkeypatch.setattr(IbisRetrievalJob, "to_df", lambda job: real(job).iloc[::-1])
    monkeypatch.setattr(dataset, "PIECE_ROWS", 7)
    shuffled = dataset.positions(home, until=AS_OF).sample(frac=1, random_state=1)
    doubled = pd.concat([shuffled, shuffled.head(3)], ignore_index=True)
    joined = dataset.point_in_time(home, doubled)
    assert joined.event_id.tolist() == doubled.event_id.tolist()
    for row in joined.to_dict("records"):
        day = int(row["event_timestamp"].timestamp()) // 86_400
        mine = [e for e in LOG if e.user == row["user"]]
        if not any(oracle.day_of(e) < day for e in mine):
            assert pd.isna(row["num_events_28d"])
            continue
        for name, value in oracle.behaviour(mine, day, 28).items():
            if value is None:
                assert pd.isna(row[name])
            else:
                assert row[name] == pytest.approx(value, abs=0.01), name


def test_future_events_change_no_row(home: Path, tmp_path: Path) -> None:
    cut = shop_log.START + timedelta(days=50)
    later = [e for e in shop_log.copies(LOG, "new") if e.time_ms >= cut.timestamp() * 1000]
    with_more = shop_log.write(tmp_path, LOG)
    shop_log.write(tmp_path, later, "later")
    snapshots.build(with_more, until=AS_OF)
    rows = dataset.positions(home, until=cut)
    one, two = dataset.point_in_time(home, rows), dataset.point_in_time(with_more, rows)
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(rows, dataset.positions(with_more, until=cut))


def test_build_writes_features_and_labels(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.parquet"
    told: list[tuple[int, int]] = []
    count = dataset.build(home, as_of=AS_OF, out=out, progress=lambda *a: told.append(a))
    frame = pd.read_parquet(out)
    assert len(frame) == count == told[0][1]
    labels = {"days_to_next_purchase", *(f"purchase_{days}d" for days in dataset.HORIZONS_DAYS)}
    assert {"user", "event_timestamp", "spend_28d", "rfm_recency_days"} | labels <= set(frame)


def test_a_join_that_loses_rows_is_an_error(home: Path, monkeypatch: Any) -> None:
    from feast.infra.offline_stores.ibis import IbisRetrievalJob

    real = IbisRetrievalJob.to_df
    monkeypatch.setattr(IbisRetrievalJob, "to_df", lambda self: real(self).iloc[1:])
    with pytest.raises(PointInTimeError, match="the join gave"):
        dataset.point_in_time(home, dataset.positions(home, until=AS_OF))


def test_an_empty_archive_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="portrait import"):
        dataset.positions(tmp_path, until=AS_OF)
