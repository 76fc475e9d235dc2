"""The page holds what the results hold."""

from pathlib import Path
from typing import Any

from training.compare.page import keep


def result(name: str, own: float) -> dict[str, Any]:
    row = {"recall@10": 0.2, "hr@10": 0.3, "mrr": 0.1, "ci": {"ndcg@10": [0.08, 0.12]}}
    return {
        "dataset": name, "users": 10, "events": 100, "items": 7, "machine": "a machine",
        "split": {"how": "by time", "test_requests": 50, "test_users": 9, "seen_items": "kept"},
        "models": {"portrait": {"ndcg@10": own, **row}, "ease": {"ndcg@10": 0.1, **row}},
        "over_best_peer": {
            "ndcg@10": {"peer": "ease", "ratio": own / 0.1, "difference": own - 0.1,
                        "ci": [-0.01, 0.02]},
            "mrr": None,
        },
        "seconds": {"portrait": 9.0, "ease": 1.0},
        "tuning": {"budget_s": 60.0, "seeds": [7], "ease": {"tried": 3}},
        "not_run": {"hstu": "too slow"},
    }  # fmt: skip


def test_every_data_set_has_its_part_and_the_best_model_stands_first(tmp_path: Path) -> None:
    keep(tmp_path / "accuracy", result("one", 0.12))
    page = keep(tmp_path / "accuracy", result("two", 0.08)).read_text()
    assert page.index("## one") < page.index("## two")
    first, second = page.split("## two")
    assert first.index("| portrait") < first.index("| ease")
    assert second.index("| ease") < second.index("| portrait")
    assert "1.200 × the best peer (ease)" in page
    assert "0.800 × the best peer (ease)" in page
    assert "hstu (too slow)" in page


def test_a_new_result_takes_the_place_of_the_old(tmp_path: Path) -> None:
    keep(tmp_path / "accuracy", result("one", 0.12))
    page = keep(tmp_path / "accuracy", result("one", 0.11)).read_text()
    assert page.count("## one") == 1
    assert "1.200 ×" not in page
