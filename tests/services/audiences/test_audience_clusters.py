"""Clusters as audiences: from live rows to members, with what sets them apart."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pandas as pd
import pytest
import redis
from typer.testing import CliRunner

from feature_repo.archive.event_archive import Archive
from feature_repo.audiences.index import Index
from feature_repo.audiences.language import read
from feature_repo.audiences.ready import ready
from feature_repo.errors import InvalidInputError, InvalidRuleError, NotFoundError
from feature_repo.online.live_rows import load_live
from services.audiences.answers import AudienceAnswers
from services.audiences.clusters import refresh_clusters
from services.audiences.definitions import check
from services.commands.cli import app
from services.lab.bench.model import write_untrained
from services.models.transition import Transition
from services.settings import Settings
from tests.feature_repo import analytics_shop as shop

NOW_MS = shop.START_MS + 240 * shop.DAY_MS


def silent(done: int, total: int, what: str) -> None:
    pass


@pytest.fixture
def home(tmp_path: Path, store_client: redis.Redis) -> Path:
    """Users of four interests, whose rows an untrained model has made, but for one."""
    from training.network.model_dir import load
    from training.scoring.transition import LearnedTransition

    store_client.flushall()
    names = [f"{{p00{number % 3}}}u{number:025d}" for number in range(160)]
    events = pd.DataFrame(
        {
            "user": user, "kind": "purchase", "tz": None, "prices": [2.0],
            "time_ms": shop.START_MS + (7 * order + number % 5) * shop.DAY_MS,
            "categories": [shop.CATEGORIES[number % 4]],
        }
        for number, user in enumerate(names) for order in range(6)
    )  # fmt: skip
    shop.write(tmp_path, events)
    archive = Archive(tmp_path / "archive" / "events")
    model = load(write_untrained(archive, tmp_path / "models" / "one"))
    rows = Transition(LearnedTransition(model)).fold(dict(archive.histories()))
    for user, row in rows.items():
        version = "another" if user == names[3] else row.model
        load_live(store_client, {user: replace(row, model=version)})
    return tmp_path


def test_every_user_of_the_model_is_in_one_cluster_that_is_an_audience(
    home: Path, redis_url: str
) -> None:
    settings = Settings(home=home, redis_url=redis_url)
    found, silhouettes = refresh_clusters(settings, redis_url, now_ms=NOW_MS, tell=silent)
    assert 3 <= len(found) <= 12
    assert len(found) in silhouettes
    with Index(home) as index:
        given = ready(index.top_categories(3), index.clusters)
        answers = AudienceAnswers(index, given, NOW_MS + 1)
        sizes = [answers.preview_of(f"ready-cluster-{each.cluster}")["count"] for each in found]
        assert sizes == [each.users for each in found]
        assert min(sizes) >= 20
        assert sum(sizes) == index.num_users - 1
        assert answers.preview_of("ready-cluster-1")["plan"]["mode"] == "batch"
        assert found[0].words() in given["ready-cluster-1"].title
        before = AudienceAnswers(index, given, NOW_MS - shop.DAY_MS)
        assert before.preview_of("ready-cluster-1")["count"] == 0
        with pytest.raises(InvalidRuleError, match="may be gone"):
            check("mine", read({"rule": {"audience": "ready-cluster-1"}, "consent": []}), {})


def test_the_command_tells_the_clusters(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    monkeypatch.setenv("PORTRAIT_HOME", str(home))
    day = datetime.fromtimestamp(NOW_MS / 1000, UTC).strftime("%Y-%m-%d")
    done = CliRunner().invoke(app, ["audience", "cluster", "--as-of", day, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    told = orjson.loads(done.stdout.splitlines()[-1])
    assert [each["cluster"] for each in told["clusters"]] == list(
        range(1, len(told["clusters"]) + 1)
    )


def test_without_a_model_or_enough_rows_there_are_no_clusters(
    home: Path, redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    store_client.flushall()
    with pytest.raises(InvalidInputError, match="0 users"):
        refresh_clusters(Settings(home=home, redis_url=redis_url), redis_url,
                         now_ms=NOW_MS, tell=silent)  # fmt: skip
    empty = Settings(home=tmp_path / "none", redis_url=redis_url)
    with pytest.raises(NotFoundError):
        refresh_clusters(empty, redis_url, now_ms=NOW_MS, tell=silent)
    assert not (home / "audiences").exists()
