"""The page holds what the results hold."""

from pathlib import Path
from typing import Any

from training.lab.comparison.page import keep


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


def test_what_ran_on_another_machine_says_so(tmp_path: Path) -> None:
    machines = {"portrait": "a machine", "ease": "a machine with a GPU"}
    page = keep(tmp_path / "accuracy", result("one", 0.12) | {"machines": machines}).read_text()
    assert "On a machine with a GPU: ease." in page


def test_peers_above_portrait_are_named_by_what_they_were_told(tmp_path: Path) -> None:
    found = result("one", 0.12)
    row = found["models"]["ease"]
    for name, value in (("gbdt", 0.13), ("gbdt_timed", 0.15), ("portrait_timed", 0.14)):
        found["models"][name] = row | {"ndcg@10": value}
    found["seconds"] |= {"gbdt": 1.0, "gbdt_timed": 1.0}
    page = keep(tmp_path / "accuracy", found).read_text()
    assert "Above portrait (0.1200) by NDCG@10: gbdt (0.1300).\n" in page
    assert "Above portrait_timed (0.1400) by NDCG@10: gbdt_timed (0.1500).\n" in page
    assert "Above" not in keep(tmp_path / "accuracy", result("one", 0.12)).read_text()


def study(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": "one", "study": name, "machine": "a machine",
        "split": {"how": "by time", "test_requests": 50},
        "fit": {"schedule": "short", "dropout": 0.4, "seeds": [7]},
        "rows": {
            key: {"ndcg@10": 0.1, "mrr": 0.2, "less": {"mean": -0.01, "ci": [-0.02, -0.005]}, **row}
            for key, row in rows.items()
        },
    }  # fmt: skip


def test_studies_stand_below_the_data_sets(tmp_path: Path) -> None:
    folder = tmp_path / "accuracy"
    keep(folder, study("freshness", {"0 s": {"without_state": 0.0}, "1 h": {"without_state": 0.2}}))
    keep(folder, study("ablation", {"portrait": {"by_seed": [0.1]}, "no_lstm": {"by_seed": [0.1]}}))
    way = {
        "next_category": 0.5, "jump": {"shares": 0.1, "items": 0.2}, "microseconds": 12.0,
        "adaptation": {"right": 0.7, "events_until_followed": 3.0, "curve": [0.1, 0.6]},
        "setting": {"per_event": 0.9},
    }  # fmt: skip
    keep(folder, study("updating", {"rules": way, "learned": way}))
    page = keep(folder, result("one", 0.12)).read_text()
    places = [
        page.index(f"## {part}") for part in ("one", "What each part", "What a late", "Three")
    ]
    assert places == sorted(places)
    assert "| 1 h old | 0.1000 | 0.2000 | -0.0100 [-0.0200, -0.0050] | 20.0% |" in page
    assert "| no_lstm | 0.1000 | 0.1000 | 0.2000 | -0.0100 [-0.0200, -0.0050] |" in page
    assert "![" in page
    first = (folder / "one.adaptation.svg").read_bytes()
    keep(folder, study("updating", {"rules": way, "learned": way}))
    assert (folder / "one.adaptation.svg").read_bytes() == first
