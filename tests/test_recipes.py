"""The recipes of CONTRIBUTING, each with a made-up addition and nothing else changed."""

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import small_model
import torch
from doc_pages import DOCS, ROOT
from pydantic import Field
from starlette.responses import Response

from feature_repo import importers
from feature_repo.audiences import language, live, trait_sql, traits
from feature_repo.audiences.index import Index
from feature_repo.user_profile import explicit
from services.context.answers import answer
from services.gateway import access, application, operations
from services.http import scopes
from services.recommend import rule_fallback
from services.recommend.rules import Rules
from services.settings import Settings, page
from tests.feature_repo import audience_shops as shops
from tests.feature_repo.audiences.test_audiences import (
    BUYER,
    LOOKER,
    by_profile,
    event,
    found,
    judge,
)
from tests.training.shops import habits, shop
from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison import tuning
from training.lab.comparison.datasets import by_time
from training.lab.comparison.peer import Peer, Setting
from training.lab.comparison.shop import Shop


def test_each_recipe_has_at_most_four_steps() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Recipes")[2].partition("\n## ")[0]
    recipes = re.findall(r"^### (.+?)\n(.*?)(?=\n### |\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(recipes) == 10
    for name, body in recipes:
        steps = re.findall(r"^(\d)\. ", body, re.MULTILINE)
        assert 1 <= len(steps) <= 4, name


MORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("feature_repo.events.types", sys.argv[1])
types = importlib.util.module_from_spec(spec)
import feature_repo.events
feature_repo.events.types = sys.modules[spec.name] = types
spec.loader.exec_module(types)

from pathlib import Path
from feature_repo.user_profile import explicit
from feature_repo.events.schema import Event, EventRecord, ItemRecord, missing
from feature_repo.profile_views.seed import verb
from services.catalogue import popularity
from services.recommend.event_text import sentence
from training.network.network import PortraitNetwork
from training.history import sequences, vocabulary
from training.network.config import ModelConfig
from training.network.model_dir import load
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

def event(kind):
    at, items = 1_700_000_000_000, [ItemRecord("i00")]
    return EventRecord(id=kind, type=kind, user="u", time_ms=at, received_ms=at, items=items)

try_on, view = event("try_on"), event("view_item")
bare = Event.model_construct(type="try_on", user_id="u")
assert missing(bare) == "items is required for try_on"
assert verb("try_on") == "Fit" and sentence(try_on, str, 0).startswith("wore i00 for a while on ")
assert popularity.POPULARITY_LEVELS["try_on"] == 1 and "'try_on'" in popularity._TOUCHES

home = Path(sys.argv[2])
profile = explicit.fold([try_on], explicit.decode((home / "row").read_bytes()))
assert profile.counts == {27: 2}
assert profile.items["i00"].carts == 1 and explicit.seen_items(profile) == ["i00"]
assert [each.type for each in profile.recent] == ["try_on", "try_on"]

model = load(home / "model")
assert "try_on" not in model.vocabulary.type_index
transition, scorer = LearnedTransition(model), Scorer(model)
states = transition.replay([[view], [view, try_on], [view, view]])
assert states[0] == states[1] != states[2]
assert len(scorer.scores(states[1], try_on.time_ms)) == len(model.vocabulary.items)

fresh = vocabulary.build_vocabulary([("u", [try_on])], until_ms=try_on.time_ms + 1, support=1)
assert sequences.encode([("u", [try_on])], fresh).kind.tolist() == [11]
network = PortraitNetwork(ModelConfig(), len(fresh.items), 0, 0)
assert len(network.encoder.content.kind.weight) == 12
"""


def test_an_event_type(tmp_path: Path) -> None:
    """Model and row are from before the type; its events were custom ones then."""
    line = (
        "try_on: {code: 27, needs: [items], encoder: 11, interest: 0.3, evidence: cart, seen: true,"
        " weight: 0.5, popularity: 0.3, verb: Fit, text: 'wore {} for a while'}\n"
    )
    source = ROOT / "feature_repo" / "events" / "types.py"
    shutil.copy(source, tmp_path)
    table = source.with_suffix(".yaml").read_text() + line
    (tmp_path / "types.yaml").write_text(table)
    small_model.write(tmp_path / "model")
    custom = small_model.bought(1, "i00")
    custom.type, custom.order_id = "try_on", None
    (tmp_path / "row").write_bytes(explicit.encode(explicit.fold([custom])))
    done = subprocess.run(
        [sys.executable, "-c", MORE, tmp_path / "types.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class More(Settings):
        made_up: int = Field(default=3, ge=1, description="What nobody needs")

    monkeypatch.setenv("PORTRAIT_MADE_UP", "5")
    assert More().made_up == 5
    assert "| `PORTRAIT_MADE_UP` | `3` | What nobody needs |" in page(More)


def test_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    router = scopes.router("server", "made up")

    @router.get("/v1/made-up")
    async def made_up() -> Response:
        """Answer what nobody asked."""
        return answer({"made": "up"})

    @router.delete("/v1/made-up", dependencies=[scopes.needs("admin")])
    async def undo() -> Response:
        """Take it back."""
        return answer({})

    monkeypatch.setattr(operations, "router", router)
    table = access.table()
    assert "| `GET /v1/made-up` | – | – | – | yes | yes |" in table
    assert "| `DELETE /v1/made-up` | – | – | – | – | yes |" in table
    assert "/v1/receipts" not in table  # its router is not in this application
    assert application.operations is operations


def test_a_trait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "orders.even"
    monkeypatch.setitem(traits.TRAITS, name, traits.Trait(name, "flag", "an even number of orders"))
    monkeypatch.setitem(trait_sql._VALUES, name, "(x.num_orders % 2 = 0)")
    monkeypatch.setitem(live._TRAITS, name, lambda user: user.profile.orders.count % 2 == 0)
    log = [event("purchase", BUYER, day, order_id=f"o{day}") for day in (1, 2)]
    log.append(event("purchase", LOOKER, 3, order_id="p"))
    definition = language.read({"rule": {"trait": {"name": name, "eq": True}}, "consent": []})
    shops.write(tmp_path, log, [])
    now = shops.START + timedelta(days=shops.DAYS)
    with Index(tmp_path) as index:
        assert found(index, definition, {}, now) == {BUYER}
    assert by_profile(judge(log, [], {}, now), definition) == {BUYER}


def test_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class More(Rules):
        made_up: bool = False

    step = ("made_up", lambda rules: rules.model_copy(update={"made_up": False}))
    monkeypatch.setattr(rule_fallback, "STEPS", (step, *rule_fallback.STEPS))
    rules = More().under(More(made_up=True))
    assert list(rule_fallback.relax(rules)) == [("made_up", More())]
    table = (DOCS / "recommendations.md").read_text()
    assert [name for name in Rules.model_fields if f"| `{name}" not in table] == []


def test_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    retailrocket = Path(importers.__file__).with_name("retailrocket.yaml").read_text()
    (tmp_path / "made_up.yaml").write_text(retailrocket.replace("retailrocket", "made-up"))
    monkeypatch.setattr(importers, "SOURCES", (*importers.SOURCES, "made_up"))
    monkeypatch.setattr(importers, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "log.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,1,view,355,\n1433221332118,1,transaction,355,7\n1433221332119,,view,355,\n"
    )
    report = importers.run("made_up", home=tmp_path / "home", path=tmp_path / "log.csv")
    assert (report.rows_in, report.accepted, dict(report.rejected)) == (3, 2, {"missing_user": 1})


def test_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    baskets = shop(habits, users=20)
    data = Shop("habits", baskets, by_time(baskets), support=1)

    class Alphabet(Peer):
        name = "alphabet"
        grid: ClassVar = {"order": ("a to z",)}

        def fit(self, setting: Setting) -> None:
            self.scores = -torch.arange(self.shop.items, dtype=torch.float32)

        def score(self, wanted: EvaluationWindow) -> torch.Tensor:
            return self.scores.expand(len(wanted.event), -1)

    monkeypatch.setitem(tuning.MODELS, Alphabet.name, Alphabet)
    result = tuning.one(data, "alphabet", seeds=[7], budget_s=0.0, tell=lambda _: None)
    assert result.tuning["chosen"] == {"order": "a to z"}
    assert result.metrics.shape == (len(data.test.event), 4)
