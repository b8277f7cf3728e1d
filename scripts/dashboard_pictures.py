"""Draws the dashboards of docs/operations/dashboards.md: `python scripts/dashboard_pictures.py overview cost`.

Reads the generated dashboards and has a running Prometheus (`--prometheus`, with observability/prometheus.yml) answer
every panel's query for the last `--minutes`. The layout is the dashboard's, the values are Prometheus'; Grafana is not
needed, and looks different. Look at the pictures before you commit them.
"""

import argparse
import html
import json
import math
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
COLUMN, ROW, GAP = 50, 28, 8
"""Pixels of a dashboard's grid, which has 24 columns, and between two panels."""
COLORS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#c4162a", "#b7950b", "#138496", "#6c757d")
MAX_SERIES = len(COLORS)
POINTS = 120
STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:11px;fill:#333}.title{font-size:12px;font-weight:600}"
    ".value{font-size:26px;font-weight:600}.head{font-size:14px;font-weight:600}.axis{fill:#888;font-size:10px}"
)

Series = tuple[str, list[tuple[float, float]]]


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def range(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        step = max(1, int((end - start) / POINTS))
        return self._read("query_range", {"query": query, "start": start, "end": end, "step": step})

    def now(self, query: str, at: float) -> list[dict[str, Any]]:
        return self._read("query", {"query": query, "time": at})

    def _read(self, what: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        url = f"{self._url}/api/v1/{what}?{urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  # the URL of whoever runs this
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


def filled_in(query: str, seconds: float) -> str:
    """A panel's query with what Grafana puts in: all models, organisations and teams."""
    query = query.replace("$__rate_interval", "1m").replace("$__range", f"{int(seconds)}s")
    return re.sub(r"\$\{?[a-z]+\}?", ".*", query)


def legend(pattern: str, labels: dict[str, str]) -> str:
    if pattern == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), pattern).strip()


def in_words(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s" or unit == "ms":
        seconds = value if unit == "s" else value / 1000
        return f"{seconds * 1000:.3g} ms" if abs(seconds) < 1 else f"{seconds:.3g} s"
    if unit == "currencyUSD":
        return f"${value:.3g}"
    powers = ("", "Ki", "Mi", "Gi") if unit == "bytes" else ("", "k", "M", "G")
    base = 1024 if unit == "bytes" else 1000
    power = 0
    while abs(value) >= base and power < len(powers) - 1:
        value, power = value / base, power + 1
    suffix = {"bytes": "B", "reqps": "/s"}.get(unit, "")
    return f"{value:.3g} {powers[power]}{suffix}".strip()


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def curves(series: list[Series], box: tuple[float, float, float, float], unit: str) -> Iterator[str]:
    """Lines over time in a box, with a scale, and a legend of one line below."""
    x, y, width, height = box
    series = [(name, kept) for name, points in series if (kept := [p for p in points if math.isfinite(p[1])])]
    if not series:
        yield text(x + width / 2, y + height / 2, "no events in this time", "axis", "middle")
        return
    every = [point for _, points in series for point in points]
    first, last = min(at for at, _ in every), max(at for at, _ in every)
    most = max((value for _, value in every), default=0.0) or 1.0
    plot = height - 18
    for share in (0.0, 0.5, 1.0):
        level = y + plot * (1 - share)
        yield f'<path d="M{x + 46:.0f} {level:.1f}h{width - 46:.0f}" stroke="#e5e5e5"/>'
        yield text(x + 42, level + 4, in_words(most * share, unit), "axis", "end")
    at_x = x + 46
    for color, (name, points) in zip(COLORS, series[:MAX_SERIES], strict=False):
        places = [
            f"{x + 46 + (width - 46) * (at - first) / max(last - first, 1):.1f} {y + plot * (1 - value / most):.1f}"
            for at, value in points
        ]
        yield f'<path d="M{"L".join(places)}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        if at_x + 14 + 6 * len(name) < x + width:
            yield f'<rect x="{at_x:.0f}" y="{y + height - 7:.0f}" width="8" height="3" fill="{color}"/>'
            yield text(at_x + 11, y + height - 2, name, "axis")
            at_x += 24 + 5.6 * len(name)


def panel(found: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> Iterator[str]:
    place = found["gridPos"]
    x, y = place["x"] * COLUMN + GAP / 2, place["y"] * ROW + GAP / 2
    width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
    if found["type"] == "row":
        yield text(x, y + 15, found["title"], "head")
        return
    unit = found["fieldConfig"]["defaults"].get("unit", "short")
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="#fff" stroke="#d8d8d8"/>'
    yield text(x + 8, y + 17, found["title"], "title")
    queries = [(filled_in(each["expr"], end - start), each.get("legendFormat", "")) for each in found["targets"]]
    if found["type"] == "timeseries":
        series = [
            (legend(name, each["metric"]), [(float(at), float(value)) for at, value in each["values"]])
            for query, name in queries
            for each in prometheus.range(query, start, end)
        ]
        yield from curves(series, (x + 8, y + 30, width - 16, height - 38), unit)
        return
    values = [
        (", ".join(each["metric"].values()), float(each["value"][1]))
        for query, _ in queries
        for each in prometheus.now(query, end)
    ]
    if found["type"] == "stat":
        shown = in_words(values[0][1], unit) if values and math.isfinite(values[0][1]) else "–"
        yield text(x + width / 2, y + height / 2 + 20, shown, "value", "middle")
        return
    for row, (name, value) in enumerate(sorted(values, key=lambda each: -each[1])[: (height - 40) // 16]):
        yield text(x + 8, y + 40 + 16 * row, name)
        yield text(x + width - 8, y + 40 + 16 * row, in_words(value, unit), anchor="end")


def picture(dashboard: dict[str, Any], prometheus: Prometheus, minutes: float) -> str:
    end = time.time()
    shapes = [shape for each in dashboard["panels"] for shape in panel(each, prometheus, end - 60 * minutes, end)]
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"]) * ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height}"><style>{STYLE}</style>'
    return "\n".join((head, f'<rect width="{24 * COLUMN}" height="{height}" fill="#f7f7f8"/>', *shapes, "</svg>\n"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="files of observability/dashboards, without .json")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=15)
    arguments = parser.parse_args()
    for name in arguments.names:
        dashboard = json.loads((ROOT / "observability" / "dashboards" / f"{name}.json").read_text())
        path = ROOT / "docs" / "images" / f"dashboard-{name}.svg"
        path.write_text(picture(dashboard, Prometheus(arguments.prometheus), arguments.minutes))
        print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
