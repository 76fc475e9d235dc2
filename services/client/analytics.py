"""The client's calls about behaviour analysis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.client.subject import Subject

if TYPE_CHECKING:
    from services.analytics import schemas as said


class AnalyticsCalls(Subject):
    """Asks for aggregates of at least twenty people; what is returned are JSON documents.

    Every call takes ``as_of``, a day or an RFC 3339 time; default: now.
    """

    root = "/v1/analytics"

    def trends(
        self, *, type: str = "purchase", grain: str = "week", level: int = 1,  # noqa: A002
        category: str | None = None, most: int = 10, buckets: int = 52, as_of: str | None = None,
    ) -> "said.Trends":  # fmt: skip
        """Return demand by category: whole weeks or months, growth, change points."""
        return self._get("trends", type=type, grain=grain, level=level, category=category,
                         most=most, buckets=buckets, as_of=as_of)  # fmt: skip

    def drift(self, *, months: int = 12, most: int = 10, as_of: str | None = None) -> "said.Drift":
        """Return how far profiles move, and which interests rise and fall."""
        return self._get("drift", months=months, most=most, as_of=as_of)

    def retention(
        self, *, type: str = "purchase", grain: str = "month", periods: int = 12,  # noqa: A002
        as_of: str | None = None,
    ) -> "said.Retention":  # fmt: skip
        """Return how many of each cohort came back."""
        return self._get("retention", type=type, grain=grain, periods=periods, as_of=as_of)

    def funnel(
        self, steps: Sequence[str], *, within: str = "7d", days: int = 365,
        as_of: str | None = None,
    ) -> "said.Funnel":  # fmt: skip
        """Return how many users reached each of some ordered steps."""
        return self._get("funnel", steps=",".join(steps), within=within, days=days, as_of=as_of)

    def rfm(
        self, *, rows: str = "recency", columns: str = "frequency", as_of: str | None = None
    ) -> "said.Rfm":
        """Return the grid of buyers by fifths of two figures."""
        return self._get("rfm", rows=rows, columns=columns, as_of=as_of)

    def habits(
        self, *, type: str = "purchase", days: int = 365, as_of: str | None = None  # noqa: A002
    ) -> "said.Habits":  # fmt: skip
        """Return events by weekday and hour."""
        return self._get("habits", type=type, days=days, as_of=as_of)

    def affinities(
        self, *, months: int = 12, most: int = 20, category: str | None = None,
        as_of: str | None = None,
    ) -> "said.Affinities":  # fmt: skip
        """Return which categories lie in one basket."""
        return self._get("affinities", months=months, most=most, category=category, as_of=as_of)
