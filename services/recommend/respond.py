"""The answer: what a ranking looks like from outside, and why it is what it is."""

from services.http.answer_schemas import Lacking, RankingReason, Recommendations
from services.recommend.ranking import Ranking


def source(ranking: Ranking, lacking: Lacking | None) -> str:
    """Return which of the sources counted in metrics an answer is from."""
    if lacking is not None:
        return "degraded"
    return "model" if ranking.model else "profile" if ranking.personalized else "popular"


def respond(
    ranking: Ranking,
    recommendation_id: str,
    user_id: str | None,
    lacking: Lacking | None,
    placement: str | None,
) -> Recommendations:
    """Return the body of an answer; ``lacking`` says why it is degraded, None if it is not."""
    return {
        "recommendation_id": recommendation_id,
        "user_id": user_id,
        "placement": placement,
        "items": ranking.items,
        "model": ranking.model,
        "personalized": ranking.personalized,
        "degraded": lacking is not None,
        "reason": _reason(ranking, lacking),
        "relaxed": ranking.relaxed,
    }


def timing(ranking: Ranking, read_ms: float) -> str:
    """Return the time of each stage as a ``Server-Timing`` header's value."""
    stages = {"read": read_ms, **ranking.stage_ms}
    return ", ".join(f"{name};dur={taken_ms:.3f}" for name, taken_ms in stages.items())


def _reason(ranking: Ranking, lacking: Lacking | None) -> RankingReason:
    if lacking is not None:
        return lacking
    if not ranking.personalized:
        return "cold_start"
    return "model" if ranking.model else "explicit_profile"
