"""The worker's metrics."""

from quarterdeck.telemetry.metrics import Metrics
from quarterdeck.telemetry.saturation import SaturationMetrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WorkerMetrics(Metrics):
    """Backlogs of ledger and traces, and the outcome of records."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.counter("quarterdeck_ledger_rows", "Rows inserted into the ledger.")
        self.duplicates = self.counter(
            "quarterdeck_ledger_duplicates", "Records that were already in the ledger, from repeated deliveries."
        )
        self.dead = self.counter(
            "quarterdeck_ledger_dead_records",
            "Records moved to the dead stream: unreadable, or refused by the database.",
            ("reason",),
        )
        self.batch_seconds = self.histogram(
            "quarterdeck_ledger_batch_seconds", "Time from reading a batch to its commit and acknowledgement.", _SECONDS
        )
        self.waiting = self.gauge(
            "quarterdeck_ledger_waiting_records", "Records in the stream that are not in the ledger yet.", ("org",)
        )
        self.lag_seconds = self.gauge(
            "quarterdeck_ledger_lag_seconds", "Age of the oldest record in the stream; 0 if it is empty.", ("org",)
        )
        self.dead_waiting = self.gauge(
            "quarterdeck_ledger_dead_waiting_records", "Records on the dead stream, which need an operator.", ("org",)
        )
        self.lost = self.counter("quarterdeck_lost_requests", "Requests settled as lost because their gateway died.")
        self.prompt_syncs = self.counter(
            "quarterdeck_prompt_syncs",
            "Versions and labels of prompts carried over (pushed, pulled, label_here, label_there), and refused ones.",
            ("step",),
        )
        self.prompt_sync_conflicts = self.gauge(
            "quarterdeck_prompt_sync_conflicts",
            "Differences between prompts here and at Langfuse that wait for a decision.",
        )
        self.prompt_sync_linked = self.gauge(
            "quarterdeck_prompt_sync_linked", "Prompts that are synchronised with Langfuse."
        )
        self.prompt_sync_up = self.gauge(
            "quarterdeck_prompt_sync_up",
            "1 if the last synchronisation with Langfuse succeeded or none is set up, else 0.",
        )
        self.prompt_rollbacks = self.counter(
            "quarterdeck_prompt_rollbacks", "Canaries of prompts that were rolled back because a bound was broken."
        )
        self.contents = self.counter(
            "quarterdeck_contents",
            "Captured inputs and outputs: stored, missing (dropped or expired before the worker saw them), deleted, or"
            " failed (could not be redacted or stored).",
            ("outcome",),
        )
        self.scores_exported = self.counter(
            "quarterdeck_scores_exported", "Scores that the trace backend took (delivered) or refused.", ("outcome",)
        )
        self.webhook_attempts = self.counter(
            "quarterdeck_webhook_attempts",
            "Attempts to deliver a webhook: delivered, retried (failed, and is repeated), failed (for good), and"
            " deliveries that were dropped because too many wait.",
            ("outcome",),
        )
        self.jobs_running = self.gauge("quarterdeck_jobs_running", "Jobs that run in this worker.", ("kind",))
        self.jobs_waiting = self.gauge("quarterdeck_jobs_waiting", "Jobs of the platform that wait.", ("kind",))
        self.jobs_oldest_seconds = self.gauge(
            "quarterdeck_jobs_oldest_seconds", "Age of the oldest job that waits; 0: none does.", ("kind",)
        )
        self.jobs_open_seconds = self.gauge(
            "quarterdeck_jobs_open_seconds",
            "Age of the oldest job that has not ended, waiting or running; 0: there is none.",
            ("kind",),
        )
        self.stored_bytes = self.gauge(
            "quarterdeck_files_stored_bytes",
            "Bytes of files and parts of uploads that count toward the quota of their organisation.",
            ("org",),
        )
        self.jobs_ended = self.counter(
            "quarterdeck_job_attempts",
            "Attempts at jobs: done, retried (failed, or there is more to do), failed (no attempt is left), stopped"
            " (put back by a worker that ends), lost (cancelled, or taken over by another worker).",
            ("kind", "outcome"),
        )
        self.batch_requests = self.counter(
            "quarterdeck_batch_requests",
            "Requests of batches: completed, failed (answered with an error), expired, cancelled.",
            ("outcome",),
        )
        self.batch_refusals = self.counter(
            "quarterdeck_batch_refusals",
            "Refusals for want of room, after which a batch sends half as many requests at once; they are repeated.",
        )
        self.batch_concurrency = self.gauge(
            "quarterdeck_batch_concurrency", "Requests of batches that this worker may send at once."
        )
        self.batches_ended = self.counter(
            "quarterdeck_batches_ended", "Batches that have ended: completed, failed, expired, cancelled.", ("status",)
        )
        self.budget_alerts = self.counter(
            "quarterdeck_budget_alerts", "Thresholds of budgets that were reached and recorded as events."
        )
        self.traces_exported = self.counter(
            "quarterdeck_traces_exported", "Traces of requests accepted by a trace sink.", ("sink",)
        )
        self.traces_dropped = self.counter(
            "quarterdeck_traces_dropped",
            "Traces that were not exported: overflow (the sink's queue was full), refused (by the sink), unreadable.",
            ("sink", "reason"),
        )
        self.traces_unsampled = self.counter(
            "quarterdeck_traces_unsampled", "Requests without a trace, by telemetry.sampling or sampling_ratio."
        )
        self.traces_waiting = self.gauge(
            "quarterdeck_traces_waiting_records", "Traces that are not exported yet.", ("org", "sink")
        )
        self.traces_up = self.gauge(
            "quarterdeck_traces_up", "1 if the trace sink accepted the last export, else 0.", ("sink",)
        )
        self.redis_up = self.gauge("quarterdeck_redis_up", "1 if Redis is available, else 0.")
        self.database_up = self.gauge("quarterdeck_database_up", "1 if the last database call succeeded, else 0.")
        self.redis_memory = self.gauge("quarterdeck_redis_memory_bytes", "Memory that Redis uses.")
        self.redis_memory_limit = self.gauge(
            "quarterdeck_redis_memory_limit_bytes", "Redis' maxmemory; 0: it has none."
        )
        self.saturation = SaturationMetrics(self)
