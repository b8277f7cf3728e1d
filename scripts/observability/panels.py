"""Panels of the kinds that the dashboards share."""

from observability.grafana import Panel, Query
from observability.queries import quantile

MODEL = 'model=~"$model"'


def latency(title: str, metric: str, description: str, *, matchers: str = MODEL, by: str = "") -> Panel:
    """Median, 95th and 99th percentile."""
    legend = " {{" + by + "}}" if by else ""
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    queries = tuple(Query(quantile(share, metric, matchers, by=by), f"{name}{legend}") for share, name in shares)
    return Panel(title, description, queries, unit="s")


def single(title: str, description: str, expr: str, *, unit: str = "short", width: int = 4) -> Panel:
    """A number."""
    return Panel(title, description, (Query(expr),), unit=unit, kind="stat", width=width, height=4)


def lines(title: str, description: str, *queries: Query, unit: str = "short", width: int = 8) -> Panel:
    return Panel(title, description, queries, unit=unit, width=width)
