"""Processes from /proc, counters from /metrics; what can't be read is left out."""

import os
from pathlib import Path

from tests.load.servers import answering

from quarterdeck.load.run import monitoring


def test_a_living_process_has_memory_time_and_threads_and_a_dead_one_is_left_out() -> None:
    (found,) = monitoring.sample(12.5, {os.getpid(): "me", 2**22 + 1: "nobody"})
    assert (found.time, found.name, found.pid) == (12.5, "me", os.getpid())
    assert found.rss_bytes > 1 << 20
    assert found.threads >= 1


def test_no_platform_here_has_no_pids(tmp_path: Path) -> None:
    assert monitoring.platform_pids(tmp_path) == {}
    assert not monitoring.has_real_engine(tmp_path)


def test_counters_are_read_and_buckets_are_not() -> None:
    text = b"""# HELP quarterdeck_tokens x
quarterdeck_tokens_total{kind="output",model="a"} 12.0
quarterdeck_redis_up 1
quarterdeck_request_duration_seconds_bucket{le="0.1"} 4
process_cpu_seconds_total 3
"""
    with answering({"/metrics": (200, text)}) as url:
        found = monitoring.scrape(url)
        assert monitoring.scrape(f"{url}/nothing") == {}
    assert found == {'quarterdeck_tokens_total{kind="output",model="a"}': 12.0, "quarterdeck_redis_up": 1.0}
