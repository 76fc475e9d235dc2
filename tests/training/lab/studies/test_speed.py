"""The training benchmark counts what is learned from."""

from tests.training.shops import habits, shop
from training.lab.comparison.datasets import by_time
from training.lab.comparison.shop import Shop
from training.lab.studies import speed
from training.network.config import ModelConfig
from training.network.examples import ExampleMaker


def test_both_are_measured_on_the_same_events() -> None:
    found = shop(habits, users=20)
    made = Shop("habits", found, by_time(found), support=1)
    result = speed.measure(made, seconds=0.1, workers=1, tell=lambda done, total, what: None)
    assert result["events_per_s"] > 0
    assert result["over_gru"] == result["events_per_s"] / result["gru_events_per_s"]
    for low, high in result["details"]["spread"].values():
        assert 0 < low <= high


def test_a_round_predicts_every_event_of_the_training_period_but_the_first() -> None:
    found = shop(habits, users=20)
    made = Shop("habits", found, by_time(found), support=1)
    prepared = made.prepare()
    maker = ExampleMaker(prepared, ModelConfig(), speed.EVERY)
    requests = sum(len(maker.train(users, 0).answers) for users in maker.train_batches(0))
    lengths = maker.train_length[maker.train_length > 1]
    assert requests == int((lengths - 1).sum())


def test_films_are_of_the_size_that_they_stand_for() -> None:
    made = speed.films()
    assert abs(len(made.histories.time_ms) - speed.EVENTS) < 0.1 * speed.EVENTS
    assert made.items > 1500
    assert len(made.histories.users) == speed.USERS
