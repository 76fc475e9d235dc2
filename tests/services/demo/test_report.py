"""The report: self-contained, escaped, with every figure it is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.demo import report
from services.demo.latency import percentiles

METRICS = {"ndcg@10": 0.25, "recall@10": 0.2, "hr@10": 0.6, "mrr": 0.4}
CI = {"ci": {"ndcg@10": [0.24, 0.26]}}


@pytest.fixture
def figures() -> dict[str, Any]:
    return {
        "about": "rows & <columns>",
        "dataset": {"events_in": 10, "accepted": 8, "reasons": {"no_user": 2}},
        "evaluation": {
            "next_basket": {"model": METRICS | CI, "decayed_frequency": METRICS | CI},
            "difference": {"model": {"ndcg@10": {"ci": [-0.01, 0.02]}}},
            "outcomes": {
                "purchase_7d": {
                    "model": {
                        "auc": 0.81, "calibration_error": 0.02,
                        "reliability": [{"said": 0.2, "true": 0.25, "moments": 9}],
                    },
                    "rate": 0.5,
                }
            },
            "test": {
                "baskets": 5, "users": 3, "items": 7, "lines": 20, "lines_outside_vocabulary": 4,
            },
        },
        "replay": {"acknowledged": 4, "applied": 4, "seconds": 0.5},
        "parity": {"users": 2, "mismatches": 0},
        "latency_ms": {"event_to_profile": {"p50": 5.0}, "recommend": {"p50": 2.5}},
        "machine": "one machine",
    }  # fmt: skip


@pytest.fixture
def pictures() -> dict[str, Any]:
    return {
        "history": [{"epoch": 0, "loss": 7.0, "validation_ndcg@10": 0.2}],
        "shopper": {
            "months": ["Jan", "Feb"], "shares": {"A": [0.5, 0.4], "all other": [0.5, 0.6]},
            "habits": [[0] * 24 for _ in range(7)], "baskets": 9,
        },
        "latency_ms": {"trivial": [1.0, 2.0]},
        "applied": ([0.0, 1.0], [0, 4]),
        "recommendations": [
            {
                "rank": 1, "title": "Tea <b>", "score": 1.5,
                "reasons": [
                    {"code": "bought_before", "evidence": {"purchase": 3}},
                    {"code": "popular"},
                ],
            }
        ],
        "worked_example": "$ curl",
    }  # fmt: skip


def test_page_shows_the_figures_and_needs_nothing_else(
    tmp_path: Path, figures: dict[str, Any], pictures: dict[str, Any]
) -> None:
    page, data = report.write(tmp_path, figures, pictures)
    text = page.read_text()
    assert json.loads(data.read_text()) == figures
    assert text.count("<svg") == 7
    assert "No purchase within 28 days" not in text
    assert "calibration error 0.020" in text
    assert "rows &amp; &lt;columns&gt;" in text
    assert "[-0.0100, +0.0200]" in text
    assert "Tea &lt;b&gt;" in text
    assert "bought 3 times; popular" in text
    assert 'src="http' not in text
    assert "<script" not in text


def test_percentiles_are_of_the_sorted_values() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"p50": 51.0, "p99": 100.0}
