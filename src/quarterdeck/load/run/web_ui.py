"""Extends locust's web UI with a goodput tab: one row per scenario.

TTFT, ITL, TOK/S and GOOD are also rows of locust's own table. Uses locust's documented hooks (`template_args`,
`extended_tables`).
"""

import json
from typing import Any

from flask import Response, request

KEY = "goodput"
COLUMNS = (
    ("name", "Scenario"),
    ("requests", "Requests"),
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
    """Add the tab. `stats` is locust's RequestStats."""
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Goodput", "key": KEY}],
        "extended_tables": [
            {"key": KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]},
        ],
    }

    @web_ui.app.after_request
    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests"):
            body = response.get_json()
            body["extended_stats"] = [{"key": KEY, "data": rows(stats)}]
            response.set_data(json.dumps(body))
        return response


def rows(stats: Any) -> list[dict[str, Any]]:
    """A row per scenario, from locust's entries."""
    names = dict.fromkeys(name for name, kind in list(stats.entries) if kind in ("POST", "SSE"))
    return [_row(stats, name) for name in names]


def _row(stats: Any, name: str) -> dict[str, Any]:
    entries = {kind: entry for (of, kind), entry in stats.entries.items() if of == name}
    requests = entries.get("SSE") or entries["POST"]
    ttft, itl, good = entries.get("TTFT"), entries.get("ITL"), entries.get("GOOD")

    def percentile(entry: Any, q: float) -> float | str:
        return round(entry.get_response_time_percentile(q), 1) if entry else ""

    return {
        "name": name,
        "requests": requests.num_requests,
        "errors": requests.num_failures,
        "ttft_p50": percentile(ttft, 0.5),
        "ttft_p99": percentile(ttft, 0.99),
        "itl_p50": percentile(itl, 0.5),
        "itl_p99": percentile(itl, 0.99),
        "tokens": round(itl.current_rps, 1) if itl else "",
        "good": good.num_requests if good else 0,
        "goodput": round(good.current_rps, 1) if good else 0,
    }
