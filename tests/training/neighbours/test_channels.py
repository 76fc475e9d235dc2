"""Memories against their definition, and what mixing them in may do."""

import numpy as np
import pytest
import torch

from feature_repo.events.schema import EventRecord
from tests.training.shops import DAY_MS, START_MS, Shop, end_ms, event, habits, shop
from training.history.prepare import prepare
from training.history.sequences import Histories, encode
from training.history.vocabulary import Vocabulary, build_vocabulary
from training.neighbours.channels import CHANNEL_AT, CHANNELS, COUNT, EPSILON, Channels
from training.network.batches import Targets
from training.network.config import ModelConfig, TrainConfig
from training.network.examples import BasketRequests, ExampleMaker
from training.network.model_dir import Model
from training.network.stacking import Piece, Stacking
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition
from training.state.item_table import EVENTS, RepeatTables

Known = tuple[Vocabulary, Histories]


@pytest.fixture(scope="module")
def known() -> Known:
    made: Shop = shop(habits, users=30, events=15)
    vocabulary = build_vocabulary(made, until_ms=2**53, support=1)
    return vocabulary, encode(made, vocabulary)


def held(histories: Histories, capacity: int = 200) -> RepeatTables:
    tables = RepeatTables(len(histories.users), capacity)
    for user in range(len(histories.users)):
        for at in range(histories.starts[user], histories.starts[user + 1]):
            lines = histories.item[histories.lines[at] : histories.lines[at + 1]]
            tables.apply(
                np.array([user]), histories.time_ms[[at]], histories.weight[[at]],
                np.array([0, len(lines)]), lines,
            )  # fmt: skip
    return tables


def test_a_memory_is_the_sum_of_faded_rows(known: Known) -> None:
    vocabulary, histories = known
    memory = Channels.fit(histories, 2**53, len(vocabulary.items))
    snapshot = held(histories).snapshot(np.arange(len(histories.users)))
    found = memory.read(snapshot)
    expected = np.zeros_like(found)
    for n, row in enumerate(snapshot.rows):
        owner = snapshot.owner[n]
        since = snapshot.scalars[owner, EVENTS] - row["last_event"]
        for m, channel in CHANNEL_AT.items():
            entries = np.zeros(expected.shape[2])
            if channel.rows == "own":
                entries[row["item"] - 1] = 1.0
            else:
                table = memory.tables[channel.rows]
                part = slice(table.indptr[row["item"] - 1], table.indptr[row["item"]])
                entries[table.item[part]] = table.value[part]
            count = 1.0 if channel.count is None else row["counts"][channel.count]
            expected[owner, m] += count * channel.per_event**since * entries
    for m, channel in CHANNEL_AT.items():
        if channel.log:
            expected[:, m] = np.log(np.maximum(expected[:, m], 0) / EPSILON + 1)
    expected[:, len(CHANNELS) : COUNT] = memory.popularity
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_what_comes_after_the_training_changes_no_memory(known: Known) -> None:
    vocabulary, histories = known
    until = int(np.median(histories.time_ms))
    whole = Channels.fit(histories, until, len(vocabulary.items)).arrays()
    early = histories.select(np.arange(len(histories.users)), histories.before(until))
    cut = Channels.fit(early, until, len(vocabulary.items)).arrays()
    for name, values in whole.items():
        np.testing.assert_allclose(values, cut[name], atol=1e-6, err_msg=name)


def test_a_memory_survives_its_arrays(known: Known) -> None:
    vocabulary, histories = known
    memory = Channels.fit(histories, 2**53, len(vocabulary.items))
    again = Channels.from_arrays(memory.arrays())
    snapshot = held(histories).snapshot(np.arange(len(histories.users)))
    assert (memory.read(snapshot) == again.read(snapshot)).all()


def requests() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Targets]:
    """Logits, memories and log events of 200 requests; answers follow the second memory too."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(200, 30, generator=generator)
    memory = torch.randn(200, COUNT, 30, generator=generator)
    log_events = torch.rand(200, generator=generator) * 3
    probabilities = torch.softmax(base + 2 * memory[:, 1], dim=1)
    item = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    sizes = torch.ones(200, dtype=torch.int64)
    return base, memory, log_events, Targets(torch.arange(200), item, sizes)


def test_mixing_finds_the_memory_that_helps() -> None:
    base, memory, log_events, targets = requests()
    mixing = Stacking()
    before, after = mixing.fit([Piece(base, memory, log_events, targets)])
    assert after < before - 0.3
    weight = torch.nn.functional.softplus(
        mixing.weights[:, 0] + mixing.weights[:, 1] * log_events.mean()
    )
    assert weight[2] == pytest.approx(2.0, abs=0.6)
    assert float(weight[[1, 3, 4, 5, 6, 7, 8]].max()) < 0.3


def test_until_it_is_fitted_mixing_is_the_network_alone() -> None:
    base, memory, log_events, _ = requests()
    torch.testing.assert_close(Stacking()(base, memory, log_events), base, atol=1e-3, rtol=1e-3)


def test_serving_scores_as_evaluation_does(model: Model, histories: Shop) -> None:
    """A state read from its bytes and a history laid out whole give the same scores."""
    assert model.memory is not None
    some = histories[:12]
    encoded = encode(some, model.vocabulary)
    prepared = prepare(histories, cut_off_ms=end_ms(), support=5)
    object.__setattr__(prepared, "vocabulary", model.vocabulary)
    object.__setattr__(prepared, "histories", encoded)
    object.__setattr__(prepared, "features", np.zeros((len(encoded.time_ms), 0), np.float32))
    maker = ExampleMaker(prepared, model.config, TrainConfig(), model.memory)
    last = encoded.starts[1:] - 1
    requests = BasketRequests(np.arange(12), last - 1, last, np.zeros(12, np.bool_))
    example = maker.make(np.arange(12), requests, np.zeros(0, np.int64), encoded.lengths())
    with torch.no_grad():
        flat = model.network.unroll(example.events).flatten(0, 1)
        u = model.network.vector(flat[example.request_index], example.requests)
        wanted = model.network.scores(u, example.pairs, example.requests, example.memory).numpy()
    states = LearnedTransition(model).replay([h[:-1] for _, h in some])
    order = np.argsort(example.answers)
    for row, state in zip(wanted[order], states, strict=True):
        found = Scorer(model).scores(state, None)
        np.testing.assert_allclose(found, row, atol=1e-5, rtol=1e-5)
        assert np.argsort(-found)[:10].tolist() == np.argsort(-row)[:10].tolist()


def test_a_memory_moves_with_what_is_bought(model: Model) -> None:
    def scores(history: list[EventRecord]) -> np.ndarray:
        state = LearnedTransition(model).replay([history])[0]
        with_memory = Scorer(model).scores(state, None)
        network = model.network
        kept, network.mixing = network.mixing, None
        try:
            return with_memory - Scorer(model).scores(state, None)
        finally:
            network.mixing = kept

    one = scores([event("u", 1, START_MS, ["i05"])])
    two = scores([event("u", 1, START_MS, ["i05"]), event("u", 2, START_MS + DAY_MS, ["i07"])])
    assert not np.allclose(one, two)
    assert ModelConfig().memory
