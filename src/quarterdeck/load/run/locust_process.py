"""One locust environment as all of our processes have it, master, worker or both in one.

Import this before anything that opens a socket: locust patches the standard library.
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
"""How often workers tell the master: a ramp decides on what it hears."""


def bucket(milliseconds: float) -> float:
    """How finely locust's tables keep times: three digits. Its own two would round a 12.4 ms gap by 3 %."""
    return float(f"{milliseconds:.3g}")


class _Fine:
    """Percentiles to a hundredth: locust cuts them to whole milliseconds, a gap of 9.99 ms to 9."""

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
    """Not started yet. The stage comes with the master's word (`Begin`)."""
    sys.argv = sys.argv[:1]  # locust's parser, which the web UI asks for its options, reads the command line: ours
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
    made.stage = None
    gc.collect()
    gc.freeze()  # what is here stays: a collection that looks at all of it holds every stream up by 25 ms
    gc.set_threshold(50_000, 20, 100)
    return made


def reset_after_warmup(env: Any, at: float, now: float) -> None:
    """Locust's rates count from here."""
    import gevent

    gevent.spawn_later(max(0.0, at - now), env.stats.reset_all)
