"""The worker's metrics."""

from quarterdeck.telemetry.worker_metrics import WorkerMetrics


def test_every_family_has_a_help_line_and_the_prefix() -> None:
    for name, _, help_text, _ in WorkerMetrics().describe():
        assert name.startswith("quarterdeck_")
        assert not name.endswith("_total")
        assert help_text.endswith(".")
