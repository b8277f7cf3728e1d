"""What locust's web UI shows of ours beside its own table: a tab with goodput, and the fields of its start form.

TTFT, ITL, TOK/S and GOOD are rows of the table itself. The tab puts what belongs together into one row a scenario.
Built on the hooks that locust documents for it (`template_args`, `extended_tables`, custom arguments).
"""

import json
from typing import Any

from flask import Response, request

KEY = "goodput"
COLUMNS = (
    ("name", "Scenario"),
    ("asked", "Requests"),
    ("errors", "Errors"),
    ("ttft_p50", "TTFT p50 (ms)"),
    ("ttft_p99", "TTFT p99 (ms)"),
    ("itl_p50", "ITL p50 (ms)"),
    ("itl_p99", "ITL p99 (ms)"),
    ("tokens", "Tokens/s"),
    ("good", "Good answers"),
    ("goodput", "Goodput/s"),
)


def extend(web_ui: Any, stats: Any) -> None:
    """Give the UI its tab. `stats` is locust's RequestStats."""
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Goodput", "key": KEY}],
        "extended_tables": [
            {"key": KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]},
        ],
    }

    @web_ui.app.after_request
    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests"):
            told = response.get_json()
            told["extended_stats"] = [{"key": KEY, "data": rows(stats)}]
            response.set_data(json.dumps(told))
        return response


def rows(stats: Any) -> list[dict[str, Any]]:
    """A row a scenario, from locust's entries."""
    names = dict.fromkeys(name for name, kind in list(stats.entries) if kind in ("POST", "SSE"))
    return [_row(stats, name) for name in names]


def _row(stats: Any, name: str) -> dict[str, Any]:
    entries = {kind: entry for (of, kind), entry in stats.entries.items() if of == name}
    asked = entries.get("SSE") or entries["POST"]
    ttft, itl, good = entries.get("TTFT"), entries.get("ITL"), entries.get("GOOD")

    def percentile(entry: Any, q: float) -> float | str:
        return round(entry.get_response_time_percentile(q), 1) if entry else ""

    return {
        "name": name,
        "asked": asked.num_requests,
        "errors": asked.num_failures,
        "ttft_p50": percentile(ttft, 0.5),
        "ttft_p99": percentile(ttft, 0.99),
        "itl_p50": percentile(itl, 0.5),
        "itl_p99": percentile(itl, 0.99),
        "tokens": round(itl.current_rps, 1) if itl else "",
        "good": good.num_requests if good else 0,
        "goodput": round(good.current_rps, 1) if good else 0,
    }
