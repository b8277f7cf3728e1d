"""Outages of Redis and the database, in the log and in metrics."""

import logging

import pytest

from quarterdeck.gateway.connectivity import Connectivity
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics


def value(metrics: GatewayMetrics, name: str) -> float:
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_an_outage_and_its_end_are_each_one_line_and_a_gauge(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics = GatewayMetrics()
    connectivity = Connectivity(metrics)
    connectivity.redis(False)
    connectivity.database(False)
    assert (value(metrics, "quarterdeck_redis_up"), value(metrics, "quarterdeck_database_up")) == (0, 0)
    connectivity.redis(True)
    connectivity.migrated()
    assert (value(metrics, "quarterdeck_redis_up"), value(metrics, "quarterdeck_database_up")) == (1, 1)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "Redis is unreachable"),
        ("ERROR", "the database is unreachable"),
        ("INFO", "Redis is reachable again"),
    ]


def test_connections_that_the_gateway_closes_are_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    connectivity = Connectivity(GatewayMetrics())
    connectivity.stop()
    connectivity.redis(False)
    connectivity.database(False)
    assert caplog.records == []


def test_the_subscription_counts_as_down_until_it_is_up() -> None:
    metrics = GatewayMetrics()
    connectivity = Connectivity(metrics)
    assert value(metrics, "quarterdeck_subscription_up") == 0
    connectivity.subscription(True)
    assert value(metrics, "quarterdeck_subscription_up") == 1
