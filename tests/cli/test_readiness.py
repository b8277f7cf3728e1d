"""What `status` and `up` read in the responses of the parts."""

import pytest

from quarterdeck.cli import readiness
from quarterdeck.cli.health import HealthResponse

DEGRADED = {
    "status": "degraded",
    "parts": {"redis": "away", "database": "ready", "spool": "3 records wait for Redis"},
    "models": {"m": {"state": "ready"}, "n": {"state": "resting", "detail": "refused"}, "o": {"state": "starting"}},
}


def test_the_gateways_own_word_is_shown() -> None:
    assert readiness.gateway_state(HealthResponse(200, DEGRADED)) == "degraded"
    assert readiness.gateway_state(HealthResponse(503, {"status": "draining"})) == "draining"


def test_each_part_and_model_that_is_not_ready_is_named() -> None:
    assert readiness.gateway_problems(HealthResponse(200, DEGRADED)) == {
        "redis": "away",
        "spool": "3 records wait for Redis",
        "model n": "resting, refused",
        "model o": "starting",
    }


@pytest.mark.parametrize("body", [None, [], "x", {"parts": [], "models": 5}, {"models": {"m": 5}}])
def test_another_server_on_the_port_is_not_ready(body: object) -> None:
    response = HealthResponse(404, body)
    assert readiness.gateway_state(response) == "responds with status 404"
    assert set(readiness.gateway_problems(response)) <= {"model m"}
    assert readiness.engine_state(response) == readiness.worker_state(response) == "responds with status 404"


def test_no_response_is_no_state() -> None:
    for state in (readiness.gateway_state, readiness.worker_state, readiness.engine_state):
        assert state(HealthResponse(0)) == "no response"


def test_a_worker_without_its_database_is_not_ready() -> None:
    response = HealthResponse(503, {"ready": False, "parts": {"redis": "ok", "database": "timed out"}})
    assert readiness.worker_state(response) == "not ready"
    assert readiness.worker_problems(response) == {"database": "timed out"}


def test_an_engine_is_ready_with_all_of_its_endpoints() -> None:
    ready, starting = {"state": "ready"}, {"state": "starting"}
    assert readiness.engine_state(HealthResponse(200, {"endpoints": [ready, ready]})) == "ready"
    assert readiness.engine_state(HealthResponse(200, {"endpoints": [ready, starting]})) == "1 of 2 endpoints ready"


def test_a_worker_whose_job_fails_is_degraded() -> None:
    response = HealthResponse(200, {"ready": True, "parts": {"redis": "ok", "database": "ok", "traces": "HTTP 401"}})
    assert readiness.worker_state(response) == "degraded"
    assert readiness.worker_problems(response) == {"traces": "HTTP 401"}
