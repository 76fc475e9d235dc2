"""The model's propensities as scores of audiences: from live rows to members."""

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences.index import Index
from feature_repo.audiences.ready import ready
from feature_repo.errors import NotFoundError
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.online.live_rows import load_live
from services.audiences.answers import AudienceAnswers
from services.audiences.propensities import refresh_propensities
from services.lab.bench.model import write_untrained
from services.models.transition import Transition
from services.settings import Settings

DAY_MS = 86_400_000
USERS = tuple("{p001}" + letter * 26 for letter in "abcde")


def silent(done: int, total: int, what: str) -> None:
    pass


def shop(home: Path) -> Archive:
    entries = []
    for number, user in enumerate(USERS):
        for order in range(number + 1):
            time_ms = DAY_MS * (100 + order)
            record = EventRecord(
                id=f"{number}-{order}", type="purchase", user=user, time_ms=time_ms,
                received_ms=time_ms, order_id=f"{number}-{order}",
                items=[ItemRecord(f"i{order}", price=2.0, category="Food/Tea")],
            )  # fmt: skip
            entries.append((LogPosition.imported(time_ms), record))
    archive = Archive(home / "archive" / "events")
    archive.append("import", entries)
    return archive


def test_users_whose_row_the_model_made_get_their_propensities(
    tmp_path: Path, redis_url: str, store_client: redis.Redis
) -> None:
    from training.network.model_dir import load
    from training.scoring.scorer import Scorer
    from training.scoring.transition import LearnedTransition

    store_client.flushall()
    archive = shop(tmp_path)
    model = load(write_untrained(archive, tmp_path / "models" / "one"))
    rows = Transition(LearnedTransition(model)).fold(dict(archive.histories()))
    for user, row in rows.items():
        version = "another" if user == USERS[4] else row.model
        load_live(store_client, {user: replace(row, model=version)})
    settings = Settings(home=tmp_path, redis_url=redis_url)
    now_ms = DAY_MS * 110
    written = refresh_propensities(settings, redis_url, now_ms=now_ms, tell=silent)
    outcomes = model.network.outcomes
    assert "lapse_28d" in outcomes
    assert written == 4 * len(outcomes)
    scorer = Scorer(model)
    propensities = {
        u: scorer.propensities(rows[u].learned, now_ms)["lapse_28d"][0] for u in USERS[:4]
    }
    with Index(tmp_path) as index:
        found = dict(index.rows(
            "SELECT entity, value FROM scores JOIN users USING (u) WHERE name = 'lapse_28d'", {}
        ))  # fmt: skip
        assert found == pytest.approx(propensities)
        risk = AudienceAnswers(index, ready(), now_ms).page("ready-lapse-risk", "", 10)
        assert risk == [
            max(propensities, key=lambda user: (propensities[user], -USERS.index(user)))
        ]
        # What was said later is not known before.
        assert (
            AudienceAnswers(index, ready(), now_ms - DAY_MS).page("ready-lapse-risk", "", 10) == []
        )


def test_without_a_model_nothing_is_written(tmp_path: Path, redis_url: str) -> None:
    shop(tmp_path)
    settings = Settings(home=tmp_path, redis_url=redis_url)
    with pytest.raises(NotFoundError, match="portrait train"):
        refresh_propensities(settings, redis_url, now_ms=0, tell=silent)
    assert not (tmp_path / "audiences").exists()
