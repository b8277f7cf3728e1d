"""PromQL that dashboards and rules share."""

RATE = "$__rate_interval"

SERVED = 'route!~"/healthz|/readyz|/metrics"'
"""Requests of users: probes are left out."""
FAILED = 'status=~"error|lost",http_status!~"4.."'
"""Records of requests that failed by our or the engine's fault. A stream that broke off has the status 200."""


def rate(metric: str, matchers: str = "", *, by: str = "", window: str = RATE) -> str:
    """Per second, summed by labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{_braces(matchers)}[{window}]))"


def rare(metric: str, matchers: str = "", *, by: str = "") -> str:
    """`rate` of what mostly does not happen: 0 instead of no data."""
    return f"{rate(metric, matchers, by=by)} or vector(0)"


def quantile(share: float, metric: str, matchers: str = "", *, by: str = "", window: str = RATE) -> str:
    """A quantile of a histogram. `metric` without `_bucket`."""
    grouping = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({metric}_bucket{_braces(matchers)}[{window}])))"


def mean(metric: str, matchers: str = "", *, by: str = "", window: str = RATE) -> str:
    """The mean of a histogram."""
    return (
        f"{rate(f'{metric}_sum', matchers, by=by, window=window)}"
        f" / {rate(f'{metric}_count', matchers, by=by, window=window)}"
    )


def error_ratio(window: str) -> str:
    """Failed requests of all: 5xx of any route, and streams that broke off after their status was sent."""
    refused = f'sum(rate(quarterdeck_http_requests_total{{{SERVED},http_status=~"5.."}}[{window}]))'
    broken = f'sum(rate(quarterdeck_requests_total{{status=~"error|lost",http_status="200"}}[{window}]))'
    every = f"sum(rate(quarterdeck_http_requests_total{{{SERVED}}}[{window}]))"
    return f"(({refused} or vector(0)) + ({broken} or vector(0))) / {every}"


def slow_ratio(seconds: float, window: str) -> str:
    """Streamed answers whose first token took longer than `seconds`, which must be a bound of the histogram."""
    metric = "quarterdeck_time_to_first_token_seconds"
    fast = f'sum(rate({metric}_bucket{{le="{seconds}"}}[{window}]))'
    return f"1 - {fast} / sum(rate({metric}_count[{window}]))"


def _braces(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""
