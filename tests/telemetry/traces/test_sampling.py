"""Which requests become traces: by the trace id, so that a redelivered record is decided the same."""

import pytest
from tests.records import a_record

from quarterdeck.record import CallerTrace
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.sampling import is_sampled

PARENT = {"id": "a" * 32, "parent": "b" * 16}


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_of_requests_is_the_ratio(ratio: float) -> None:
    config = TelemetryConfig(sampling_ratio=ratio)
    kept = sum(is_sampled(a_record(), config) for _ in range(4000))
    assert kept / 4000 == pytest.approx(ratio, abs=0.05)


def test_a_lower_ratio_keeps_a_part_of_what_a_higher_one_keeps() -> None:
    for _ in range(500):
        record = a_record()
        if is_sampled(record, TelemetryConfig(sampling_ratio=0.2)):
            assert is_sampled(record, TelemetryConfig(sampling_ratio=0.4))


def test_requests_of_one_trace_have_the_same_fate() -> None:
    config = TelemetryConfig(sampling_ratio=0.5)
    assert len({is_sampled(a_record(trace=CallerTrace(**PARENT)), config) for _ in range(50)}) == 1


@pytest.mark.parametrize(("status", "kept"), [("error", True), ("lost", True), ("cancelled", False), ("ok", False)])
def test_failed_requests_are_always_kept(status: str, kept: bool) -> None:
    assert is_sampled(a_record(status=status), TelemetryConfig(sampling_ratio=0.0)) is kept


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("status", ["ok", "error"])
def test_the_callers_flag_decides_only_where_it_is_told_to(flag: bool, status: str) -> None:
    record = a_record(status=status, trace=CallerTrace(is_sampled=flag, **PARENT))
    assert is_sampled(record, TelemetryConfig(sampling="parent", sampling_ratio=0.0)) is flag
    assert is_sampled(record, TelemetryConfig(sampling="always"))


def test_metadata_alone_is_no_parent() -> None:
    record = a_record(trace=CallerTrace(name="n", is_sampled=False))
    assert is_sampled(record, TelemetryConfig(sampling="parent"))
