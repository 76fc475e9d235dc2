"""All Feast objects: entities, sources, feature views and feature services.

``feast apply`` imports this file as a top-level module, so it builds its objects at import;
it is the one file that does. What the features are is said in `feature_repo.features.catalogue`.
"""

import os
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Bytes, Float64, Int64, String

from feature_repo.features.catalogue import USER_VIEWS, VIEWS, Feature, scalars
from feature_repo.online.live_row import LIVE_VIEW, PROJECT

_TYPES = {
    "int": Int64, "float": Float64, "str": String, "bytes": Bytes,
    "list[str]": Array(String), "list[float]": Array(Float64),
}  # fmt: skip
_FEATURES = Path(os.environ.get("PORTRAIT_HOME", ".portrait")).resolve() / "features"

project = Project(name=PROJECT, description="Living user profiles")
user = Entity(
    name="user", join_keys=["user"], value_type=ValueType.STRING, description="Pseudonymous user"
)
item = Entity(
    name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="Thing on offer"
)


def _field(feature: Feature) -> Field:
    return Field(
        name=feature.name,
        dtype=_TYPES[feature.dtype],
        description=feature.equation,
        tags={"kind": feature.kind, "unit": feature.unit},
    )


def _source(view: str) -> FileSource:
    return FileSource(
        name=f"{view}_parts",
        path=str(_FEATURES / view),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        description=f"Folder of Parquet parts of {view}",
    )


def _view(name: str, entity: Entity) -> FeatureView:
    live = name == LIVE_VIEW
    key = Field(name=entity.join_key, dtype=String)
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[key, *map(_field, VIEWS[name])],
        source=_source(name),
        # Feast's own materialize takes every view that is online. The live view is read
        # online all the same (reads do not look at this), but only the updater writes it.
        online=not live,
        tags={"live": "true"}
        if live
        else {"kinds": ",".join(sorted({f.kind for f in VIEWS[name]}))},
    )


behaviour_7d = _view("behaviour_7d", user)
behaviour_28d = _view("behaviour_28d", user)
behaviour_91d = _view("behaviour_91d", user)
profile = _view("profile", user)
live_state = _view(LIVE_VIEW, user)
item_view = _view("item", item)

_numeric = [
    view[scalars(view.name)] for view in (behaviour_7d, behaviour_28d, behaviour_91d, profile)
]

training_v1 = FeatureService(
    name="training_v1",
    features=_numeric,
    description="User features of a training position; one number each",
)
ranking_v1 = FeatureService(
    name="ranking_v1",
    features=[
        *_numeric[:-1],
        profile[[*scalars(profile.name), "interest_categories", "interest_category_weights"]],
        live_state,
    ],
    description="The same features, the categories of interest and the live state, for one request",
)
ranking_items_v1 = FeatureService(
    name="ranking_items_v1", features=[item_view], description="The items' side of ranking"
)
profile_v1 = FeatureService(
    name="profile_v1",
    features=[profile, live_state],
    description="What a profile answer shows",
)

assert {view.name for view in (behaviour_7d, behaviour_28d, behaviour_91d, profile)} == set(
    USER_VIEWS
)
