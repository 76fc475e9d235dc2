"""What a wanted key may not be: a name that acts on a terminal, an origin that matches no page."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.http.key_requests import NewKey, Rotation


@pytest.mark.parametrize(
    "change",
    [{"name": "a\x1b[2J"}, {"name": " "}, {"origins": ["https://*.example"]},
     {"origins": ["https://sh op.example"]}, {"origins": [" https://shop.example"]}],
)  # fmt: skip
def test_names_and_origins_that_cannot_be_meant_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewKey.model_validate({"name": "a", "scope": "write", **change})


def test_an_overlap_is_a_number() -> None:
    assert Rotation.model_validate({"overlap_s": 60}).overlap_s == 60
    with pytest.raises(ValidationError):
        Rotation.model_validate({"overlap_s": "60"})
