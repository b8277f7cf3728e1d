"""The locust environment that master, worker and single-process runs share.

Import this module before anything that opens a socket: locust patches the standard library.
"""

import gc
import logging
import sys
from typing import Any

import locust  # first: it patches
from locust import argument_parser, runners, stats
from locust.env import Environment
from locust.shape import LoadTestShape

from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.users import user_classes

VERSION = str(locust.__version__)
REPORT_SECONDS = 1.0
"""How often workers report to the master, in seconds; a ramp decides on these reports."""


def bucket(milliseconds: float) -> float:
    """Round times for locust's tables to three digits. Locust's own two would round a 12.4 ms gap by 3 %."""
    return float(f"{milliseconds:.3g}")


class _Fine:
    """Percentiles with two decimals: locust truncates them to whole milliseconds, a gap of 9.99 ms to 9."""

    percentiles_to_report: list[float]

    def _percentile_fields(self, entry: Any, use_current: bool = False) -> list[float | str]:
        if not entry.num_requests:
            return ["N/A"] * len(self.percentiles_to_report)
        ask = entry.get_current_response_time_percentile if use_current else entry.get_response_time_percentile
        return [round(ask(q) or 0, 2) for q in self.percentiles_to_report]


class FineCSV(_Fine, stats.StatsCSV):
    """Locust's table as CSV, with our percentiles."""


class FineCSVFiles(_Fine, stats.StatsCSVFileWriter):
    """Locust's CSV files, with our percentiles."""


def environment(profile: Profile, host: str, shape: LoadTestShape | None, *, is_headless: bool) -> Environment:
    """Create the environment. Its `generator` is set when the run starts."""
    sys.argv = sys.argv[:1]  # locust's parser, used by the web UI, would read our command line
    logging.getLogger("locust").setLevel(logging.WARNING)
    runners.WORKER_REPORT_INTERVAL = REPORT_SECONDS
    stats.bucket_response_time = bucket
    stats.PERCENTILES_TO_STATISTICS = [0.5, 0.95, 0.99]
    stats.PERCENTILES_TO_CHART = [0.5, 0.99]
    options = argument_parser.get_parser(default_config_files=[]).parse_args([])
    options.headless = is_headless
    made = Environment(
        user_classes=user_classes(profile),
        shape_class=shape,
        host=host,
        events=locust.events,
        stop_timeout=profile.drain,
        parsed_options=options,
        locustfile=profile.name,
    )
    made.generator = None
    gc.collect()
    gc.freeze()  # a full collection of these objects would stall every stream by 25 ms
    gc.set_threshold(50_000, 20, 100)
    return made


def reset_after_warmup(env: Any, at: float, now: float) -> None:
    """Reset locust's statistics at the time `at`, so that its rates exclude the warm-up."""
    import gevent

    gevent.spawn_later(max(0.0, at - now), env.stats.reset_all)
