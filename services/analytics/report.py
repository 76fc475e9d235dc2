"""The behaviour report: a page of what the users of an archive do, a CSV file a part.

Not the demo's report (`report`), which tells how one run of the whole loop went. Belongs here:
which questions are asked and what is said of the answers.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from feature_repo.analytics.affinities import affinities
from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.cube import Cube, Moment
from feature_repo.analytics.drift import drift
from feature_repo.analytics.funnel import LEAST_STEPS, funnel
from feature_repo.analytics.habits import habits
from feature_repo.analytics.retention import retention
from feature_repo.analytics.rfm import rfm
from feature_repo.analytics.trends import trends
from feature_repo.archive import valid_events
from feature_repo.audiences.index import Index
from feature_repo.user_profile.purposes import DEFAULTS
from services.analytics import plots, tables

PAGE: Final = "behaviour.html"
WITHIN_DAYS: Final = 30
_TOURS: Final = (
    ("view_item", "add_to_cart", "begin_checkout", "purchase"),
    ("message_sent", "coupon_redeemed", "purchase"),
    ("purchase", "purchase"),
)

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of the report: its question, its picture and its words."""

    name: str
    title: str
    ask: Callable[[Moment], dict[str, Any]]
    draw: Callable[[dict[str, Any]], str]
    say: Callable[[dict[str, Any]], str]


def write(
    home: Path,
    out: Path,
    *,
    now_ms: int,
    steps: Sequence[str] | None,
    tell: Tell,
    standing: Mapping[str, bool] = DEFAULTS,
) -> dict[str, Any]:
    """Write ``behaviour.html`` and for each part an SVG and a CSV file into ``out``.

    Parameters
    ----------
    home
        State folder; only its archive and feature tables are read.
    now_ms
        As of when, epoch milliseconds.
    steps
        Those of the funnel; None: the first usual ones that the shop has.
    standing
        What stands of each purpose when nobody was asked.

    Returns
    -------
    dict[str, Any]
        ``page``, ``as_of``, ``events``, ``users`` and ``files``.
    """
    tell(0, 0, "reading the archive")
    with Index(home, standing) as index:
        cube = Cube(index)
        moment, written = cube.moment(now_ms), list[str]()
        parts = _parts(steps or usual_steps(cube.types))
        out.mkdir(parents=True, exist_ok=True)
        sections = []
        for number, part in enumerate(parts):
            tell(number, len(parts), part.name)
            answer = part.ask(moment)
            picture = part.draw(answer)
            (out / f"{part.name}.svg").write_text(picture)
            tables.write(out / f"{part.name}.csv", part.name, answer)
            written += [f"{part.name}.svg", f"{part.name}.csv"]
            sections.append(_section(part, answer, picture))
        head = moment.head(0)
        lede = f"{index.num_events:,} events of {index.num_users:,} users, as of {head['as_of']}."
        if index.odd:
            lede += f" Counted without what is odd in them: {valid_events.describe_odd(index.odd)}."
    template = Template((Path(__file__).parent / PAGE).read_text())
    (out / PAGE).write_text(template.substitute(lede=html.escape(lede), parts="".join(sections)))
    return {
        "page": str(out / PAGE), "as_of": head["as_of"], "events": index.num_events,
        "users": index.num_users, "files": [PAGE, *written],
    }  # fmt: skip


def usual_steps(types: Sequence[str]) -> list[str]:
    """Return the steps of the first usual funnel of which the shop has two types at least.

    Examples
    --------
    >>> usual_steps(["message_sent", "purchase"])
    ['message_sent', 'purchase']
    """
    for tour in _TOURS[:-1]:
        found = [step for step in tour if step in types]
        if len(found) >= LEAST_STEPS:
            return found
    return list(_TOURS[-1])


def _section(part: ReportSection, answer: dict[str, Any], picture: str) -> str:
    said = html.escape(part.say(answer))
    hidden = f"{answer['suppressed']:,} figures hidden (fewer than {answer['k']} people, or near)."
    return (
        f'<section id="{part.name}"><h2>{html.escape(part.title)}</h2><p>{said}</p>'
        f"<figure>{picture}<figcaption>As of {answer['as_of']}. {hidden} "
        f'<a href="{part.name}.csv">{part.name}.csv</a></figcaption></figure></section>'
    )


def _parts(steps: Sequence[str]) -> list[ReportSection]:
    return [
        ReportSection("trends", "Demand", lambda m: trends(
            m, grain="week", event_type="purchase", level=1, category=None, most=9, buckets=52,
        ), plots.trends, _say_trends),
        ReportSection(
            "drift", "Interests", lambda m: drift(m, months=6, most=8), plots.drift, _say_drift
        ),
        ReportSection("retention", "Who comes back", lambda m: retention(
            m, grain="month", event_type="purchase", periods=12,
        ), plots.retention, _say_retention),
        ReportSection("funnel", "Step by step", lambda m: funnel(
            m, steps=steps, within_ms=WITHIN_DAYS * DAY_MS, days=365,
        ), plots.funnel, _say_funnel),
        ReportSection("rfm", "Recency and frequency", lambda m: rfm(
            m, rows="recency", columns="frequency",
        ), plots.rfm, _say_rfm),
        ReportSection("habits", "When they buy", lambda m: habits(
            m, event_type="purchase", days=365,
        ), plots.habits, _say_habits),
        ReportSection("affinities", "What goes together", lambda m: affinities(
            m, months=12, most=15,
        ), plots.affinities, _say_affinities),
    ]  # fmt: skip


def _say_trends(answer: dict[str, Any]) -> str:
    words = "People who bought, week by week, with 95 % Poisson intervals"
    words += "; an orange line is where the number of purchases shifted. "
    for series in answer["series"]:
        growth = series["growth"]
        if growth is not None and not growth["interval"][0] <= 1 <= growth["interval"][1]:
            low, high = (100 * (side - 1) for side in growth["interval"])
            words += f"{series['category'] or 'Everything'}: {low:+.2f} to {high:+.2f} % a week. "
    rate = answer["false_alarms"]
    return words + f"In a shop where nothing shifts, {rate:.0%} of reports show any such line."


def _say_drift(answer: dict[str, Any]) -> str:
    return (
        "Profiles of the feature store at each month's end: which part of a user's interests "
        f"is no longer where it was. Of {answer['compared']} categories {len(answer['rising'])} "
        f"rose and {len(answer['falling'])} fell most from {answer['period']['from'][:7]} to "
        f"{answer['period']['to'][:7]}; intervals hold for all of them at once. "
        "In the first months of an archive profiles still fill up, and that is movement too."
    )


def _say_retention(answer: dict[str, Any]) -> str:
    return (
        "Of those who first bought in a month, who bought again so many months later. The first "
        "cohort (*) holds everyone who had bought before the archive begins."
    )


def _say_funnel(answer: dict[str, Any]) -> str:
    return (
        f"Users with these events in this order within {answer['within_hours'] / 24:g} days. "
        "What follows a step need not be its effect."
    )


def _say_rfm(answer: dict[str, Any]) -> str:
    return f"Buyers by fifths; frequency is of the last {answer['days']} days. Grey: hidden."


def _say_habits(answer: dict[str, Any]) -> str:
    return "Purchases of a year by weekday and hour. Grey: hidden."


def _say_affinities(answer: dict[str, Any]) -> str:
    return (
        f"The pairs of the {answer['compared']:,} compared with the highest lift, by the low end "
        "of its interval, which holds for all pairs at once."
    )
