"""The shop's rules: one file, read once at start, checked to the last word.

::

    default:                 # for every request
      exclude: [purchased]
    placements:
      home:                  # what a request names as its placement
        cap: {category: 3}
        diversity: 0.2

What a placement sets replaces what the default sets, rule by rule, and a request's rules
replace both; ``exclude`` adds up.
"""

from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_repo.errors import InvalidSettingError
from feature_repo.events.fields import Id
from feature_repo.events.schema import problems
from services.recommend.rules import Rules


class RuleBook(BaseModel):
    """Rules by placement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Rules = Rules()
    placements: Annotated[dict[Id, Rules], Field(max_length=1000)] = {}

    def rules(self, placement: str | None, given: Rules | None) -> Rules:
        """Return the rules of a request."""
        found = self.default
        if placement is not None and placement in self.placements:
            found = found.under(self.placements[placement])
        return found if given is None else found.under(given)


EMPTY: Final = RuleBook()


def load(path: Path | None) -> RuleBook:
    """Read a file of rules; None has none.

    Raises
    ------
    InvalidSettingError
        Naming the file, and the line or the rule that is wrong.
    """
    if path is None:
        return EMPTY
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidSettingError(f"rules {path} cannot be read: {reason}") from None
    try:
        body = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else "?"
        raise InvalidSettingError(f"rules {path}, line {line}: {error.problem}") from None
    except yaml.YAMLError:
        raise InvalidSettingError(f"rules {path} is not YAML") from None
    try:
        return RuleBook.model_validate({} if body is None else body)
    except ValidationError as error:
        found = problems(error)
        told = "; ".join(f"{each['pointer'] or '/'}: {each['detail']}" for each in found[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise InvalidSettingError(f"rules {path}: {told}{more}") from None
