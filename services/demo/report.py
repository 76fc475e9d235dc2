"""The demo's report: one self-contained HTML page and the same figures as JSON."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import orjson

from services.demo import plots
from services.hosting.workflow import METRICS


def write(out: Path, figures: Mapping[str, Any], pictures: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``out``.

    Parameters
    ----------
    out
        Folder, made when absent.
    figures
        What was measured, written as it is to ``report.json``.
    pictures
        What only the page shows: ``history``, ``user``, ``latency_ms``, ``applied``,
        ``recommendations``, ``worked_example``.

    Returns
    -------
    tuple[Path, Path]
        The page and the JSON file.
    """
    out.mkdir(parents=True, exist_ok=True)
    data = out / "report.json"
    data.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    page = out / "report.html"
    template = Template((Path(__file__).parent / "report.html").read_text())
    page.write_text(template.substitute(_parts(figures, pictures)))
    return page, data


def _parts(figures: Mapping[str, Any], pictures: Mapping[str, Any]) -> dict[str, str]:
    user = pictures["shopper"]
    parity, replay = figures["parity"], figures["replay"]
    return {
        "lede": html.escape(figures["about"]),
        "tiles": _tiles(figures),
        "rows_table": _rows_table(figures["dataset"]),
        "learning_curve": plots.learning_curve(pictures["history"]),
        "reliability": plots.reliability(
            {
                _OUTCOMES[name]: found["model"]["reliability"]
                for name, found in figures["evaluation"]["outcomes"].items()
            }
        ),
        "baselines": _baselines(figures["evaluation"]["next_basket"]),
        "metrics_table": _metrics_table(figures["evaluation"]["next_basket"]),
        "evaluation_note": html.escape(_evaluation_note(figures["evaluation"])),
        "interests": plots.interests_over_time(user["months"], user["shares"]),
        "interests_caption": html.escape(
            f"Long-term category interests (half-life 112 days) of the user with the most "
            f"baskets in the last fortnight, month by month: {user['baskets']} baskets in all."
        ),
        "habits": plots.habits(user["habits"]),
        "latency": plots.latencies(pictures["latency_ms"]),
        "throughput": plots.throughput(*pictures["applied"]),
        "parity": html.escape(
            f"{replay['acknowledged']:,} events acknowledged and {replay['applied']:,} applied in "
            f"{replay['seconds']:.1f} s. Afterwards the live profiles of {parity['users']:,} "
            f"users were compared with a fold of the same events from scratch: "
            f"{parity['mismatches']} mismatches."
        ),
        "recommendations": _recommendations(pictures["recommendations"]),
        "worked_example": html.escape(pictures["worked_example"]),
        "footer": html.escape(figures["machine"]),
    }


def _tiles(figures: Mapping[str, Any]) -> str:
    basket = figures["evaluation"]["next_basket"]
    ratio = basket["model"]["ndcg@10"] / basket["decayed_frequency"]["ndcg@10"]
    latency = figures["latency_ms"]
    tiles = [
        (f"{figures['dataset']['events_in']:,}", "rows read, every one accounted for"),
        (f"{ratio:.3f}×", "NDCG@10 of the best simple baseline"),
        (f"{latency['event_to_profile']['p50']:.1f} ms", "event to changed profile, median"),
        (f"{latency['recommend']['p50']:.1f} ms", "recommendation, median"),
        (f"{figures['parity']['mismatches']}", "mismatches, live against offline fold"),
    ]
    return "".join(
        f'<div class="tile"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
        for big, small in tiles
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], ours: str = "") -> str:
    body = "".join(
        f"<tr{' class=ours' if row[0] == ours else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>{body}</table>"


def _rows_table(dataset: Mapping[str, Any]) -> str:
    rows = [("rows in", f"{dataset['events_in']:,}"), ("accepted", f"{dataset['accepted']:,}")]
    rows += [(reason, f"{count:,}") for reason, count in dataset["reasons"].items()]
    return _table(("transaction rows", "count"), rows)


def _baselines(basket: Mapping[str, Any]) -> str:
    models = {k: v for k, v in basket.items() if isinstance(v, Mapping) and "ndcg@10" in v}
    return plots.model_against_baselines(models, {k: v["ci"]["ndcg@10"] for k, v in models.items()})


def _metrics_table(basket: Mapping[str, Any]) -> str:
    rows = [
        (name, *(f"{metrics[m]:.4f}" for m in METRICS))
        for name, metrics in basket.items()
        if isinstance(metrics, Mapping) and "ndcg@10" in metrics
    ]
    return _table(("next basket", *METRICS), rows, ours="model")


_OUTCOMES = {"purchase_7d": "Purchase within 7 days", "lapse_28d": "No purchase within 28 days"}


def _evaluation_note(evaluation: Mapping[str, Any]) -> str:
    low, high = evaluation["difference"]["model"]["ndcg@10"]["ci"]
    note = (
        f"Model minus decayed frequency, NDCG@10, paired by user: 95 % interval "
        f"[{low:+.4f}, {high:+.4f}]."
    )
    for outcome, found in evaluation["outcomes"].items():
        parts = ", ".join(
            f"{name.replace('_', ' ')} {values['auc']:.3f}"
            for name, values in found.items()
            if isinstance(values, Mapping)
        )
        error = found["model"]["calibration_error"]
        note += f" {_OUTCOMES[outcome]}, AUC: {parts}; calibration error {error:.3f}."
    test = evaluation["test"]
    note += (
        f" {test['baskets']:,} baskets of {test['users']:,} users, {test['items']:,} products; "
        f"{test['lines_outside_vocabulary']:,} of {test['lines']:,} basket lines are of rarer "
        f"products and left out for all alike."
    )
    return note


def _recommendations(items: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"{item['rank']}. {item['title']}",
            f"{item['score']:.3f}",
            "; ".join(_words(reason) for reason in item["reasons"]),
        )
        for item in items
    ]
    return _table(("item", "score", "why"), rows)


def _words(reason: Mapping[str, Any]) -> str:
    times = reason.get("evidence", {}).get("purchase", 0)
    bought = f"bought {times} times" if times else "bought before"
    code = str(reason["code"])
    return {
        "bought_before": bought,
        "interest_category": f"{bought} from {reason.get('key')}",
        "interest_brand": f"{bought} of {reason.get('key')}",
    }.get(code, code.replace("_", " "))
