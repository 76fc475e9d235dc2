"""Blocks of unequal worth: what is learned, what a scale does, what is chosen."""

import numpy as np
import pandas as pd
import pytest

from feature_repo.errors import InvalidInputError
from training.evaluation.predict import auc
from training.lab.targeting.block_model import BlockModel, FeatureRows, Setting, choose
from training.lab.targeting.score_metrics import grouped_auc


def rows(count: int = 600, noise: int = 60, seed: int = 0) -> FeatureRows:
    generator = np.random.default_rng(seed)
    core, other = generator.normal(size=(count, 2)), generator.normal(size=(count, noise))
    logit = 1.5 * core[:, 0] + 1.0 * other[:, 0] - 0.5
    label = (generator.random(count) < 1 / (1 + np.exp(-logit))).astype(float)
    blocks = {
        "core": pd.DataFrame(core, columns=["a", "b"]),
        "other": pd.DataFrame(other).add_prefix("n"),
    }
    return FeatureRows(blocks, label, np.arange(count) // 3, np.arange(count) % 4)


RIDGE = Setting(boosting=0.0)


def test_a_block_counts_by_its_scale() -> None:
    train, test = rows(), rows(seed=1)
    scores = {}
    for scale in (0.0, 0.5):
        model = BlockModel({"core": 1.0, "other": scale}, [], setting=RIDGE).fit(train)
        scores[scale] = auc(test.label, model.logit(test))
    assert scores[0.5] > scores[0.0] + 0.02


def test_without_breadth_only_the_core_is_seen() -> None:
    train, test = rows(), rows(seed=1)
    narrow = BlockModel({"core": 1.0, "other": 0.5}, [], setting=Setting(breadth=0, boosting=0))
    alone = BlockModel({"core": 1.0}, [], setting=RIDGE)
    np.testing.assert_array_equal(narrow.fit(train).logit(test), alone.fit(train).logit(test))


def test_columns_that_are_not_there_are_zero_and_new_ones_are_nothing() -> None:
    train, test = rows(), rows(seed=1)
    model = BlockModel({"core": 1.0, "other": 0.3}, ["other"]).fit(train)
    fewer = dict(test.blocks) | {"other": test.blocks["other"].drop(columns="n5").assign(new=7.0)}
    zero = dict(test.blocks) | {"other": test.blocks["other"].assign(n5=0.0)}
    np.testing.assert_allclose(
        model.logit(FeatureRows(fewer, test.label, test.user, test.group)),
        model.logit(FeatureRows(zero, test.label, test.user, test.group)),
    )


def test_probabilities_are_near_what_comes_true() -> None:
    train, test = rows(3000), rows(3000, seed=1)
    probability = BlockModel({"core": 1.0, "other": 0.5}, ["core"]).fit(train).probability(test)
    assert abs(probability.mean() - test.label.mean()) < 0.03
    high = probability > 0.7
    assert abs(probability[high].mean() - test.label[high].mean()) < 0.08


def test_noise_is_left_out_by_choice() -> None:
    generator = np.random.default_rng(3)
    train = rows(200)
    noise = pd.DataFrame(generator.normal(size=(200, 400))).add_prefix("n")
    train = FeatureRows({**train.blocks, "other": noise}, train.label, train.user, train.group)
    model = BlockModel({"core": 1.0, "other": 1.0}, [])
    settings = [Setting(breadth=b, boosting=0.0) for b in (1.0, 0.0)]
    assert choose(model, train, settings).breadth == 0.0


def test_one_label_cannot_be_learned() -> None:
    same = rows()
    with pytest.raises(InvalidInputError, match="all labels"):
        BlockModel({"core": 1.0}, []).fit(
            FeatureRows(same.blocks, same.label * 0, same.user, same.group)
        )


def test_what_is_chosen_by_parts_is_what_whole_models_say() -> None:
    train = rows(300)
    settings = [
        Setting(breadth=b, boosting=w, rounds=20) for b in (1.0, 0.0) for w in (0.0, 0.5, 1)
    ]
    chosen = choose(BlockModel({"core": 1.0, "other": 0.4}, ["core"]), train, settings)
    fold = train.user * 2_654_435_761 % 2**32 // 2**30
    found = []
    for setting in settings:
        score = np.zeros(300)
        for n in range(4):
            fresh = BlockModel({"core": 1.0, "other": 0.4}, ["core"], setting=setting)
            fresh.fit(train.take(np.flatnonzero(fold != n)))
            score[fold == n] = fresh.logit(train.take(np.flatnonzero(fold == n)))
        found.append(grouped_auc(train.label, score, train.group))
    assert chosen == settings[int(np.argmax(np.round(found, 6)))]
    assert max(found) > min(found)
