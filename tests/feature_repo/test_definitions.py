"""Definitions, tables and the page of features say the same."""

import runpy
from pathlib import Path

import pytest
from feast import FeatureService, FeatureView
from feast.repo_operations import get_repo_files

from feature_repo.features import catalogue
from feature_repo.features.snapshots import schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def objects() -> dict[str, object]:
    return runpy.run_path(str(ROOT / "feature_repo" / "definitions.py"))


def test_every_view_has_the_listed_fields_with_their_kind(objects: dict[str, object]) -> None:
    views = {o.name: o for o in objects.values() if isinstance(o, FeatureView)}
    assert set(views) == set(catalogue.VIEWS)
    for name, listed in catalogue.VIEWS.items():
        found = {f.name: f.tags for f in views[name].features}
        assert found == {f.name: {"kind": f.kind, "unit": f.unit} for f in listed}
        assert schema(name).names[3:] == [f.name for f in listed]


def test_only_the_live_view_is_closed_to_materialize(objects: dict[str, object]) -> None:
    views = [o for o in objects.values() if isinstance(o, FeatureView)]
    assert [v.name for v in views if not v.online] == ["live_state"]
    assert [v.name for v in views if v.tags.get("live") == "true"] == ["live_state"]
    assert set(catalogue.BATCH_VIEWS) == {v.name for v in views if v.online}


def test_feature_names_are_unique_and_all_three_kinds_are_there() -> None:
    everything = [f for listed in catalogue.VIEWS.values() for f in listed]
    assert len({f.name for f in everything}) == len(everything)
    assert {"temporal", "categorical", "numeric"} <= {f.kind for f in everything}


def test_ranking_is_training_the_interests_and_the_live_state(objects: dict[str, object]) -> None:
    services = {o.name: o for o in objects.values() if isinstance(o, FeatureService)}
    assert {"training_v1", "ranking_v1", "profile_v1"} <= set(services)

    def names(service: str) -> list[str]:
        return [
            f.name
            for projection in services[service].feature_view_projections
            for f in projection.features
        ]

    live = [f.name for f in catalogue.VIEWS["live_state"]]
    interests = ["interest_categories", "interest_category_weights"]
    assert names("ranking_v1") == names("training_v1") + interests + live


def test_the_page_is_the_list() -> None:
    page = (ROOT / "docs" / "features.md").read_text()
    assert page == catalogue.page(), (
        "run: python -m feature_repo.features.catalogue > docs/features.md"
    )
    for listed in catalogue.VIEWS.values():
        assert all(f"`{f.name}`" in page for f in listed)


def test_feast_imports_the_definitions_and_no_other_file() -> None:
    assert get_repo_files(ROOT / "feature_repo") == [ROOT / "feature_repo" / "definitions.py"]
