"""The recipes of CONTRIBUTING, each with a made-up addition and nothing else changed."""

import re
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from doc_pages import DOCS, ROOT
from pydantic import Field
from starlette.responses import Response

from feature_repo import importers
from feature_repo.audiences import language, live, trait_sql, traits
from feature_repo.audiences.index import Index
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
    assert len(recipes) == 9
    for name, body in recipes:
        steps = re.findall(r"^(\d)\. ", body, re.MULTILINE)
        assert 1 <= len(steps) <= 4, name


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
    assert "| `GET /v1/made-up` | – | – | yes | yes |" in table
    assert "| `DELETE /v1/made-up` | – | – | – | yes |" in table
    assert "/v1/models" not in table  # its router is not in this application
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
