"""What a worker counts."""

from quarterdeck.telemetry.metrics import Metrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WorkerMetrics(Metrics):
    """How far the ledger and the traces are behind, and what became of the records."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.counter("quarterdeck_ledger_rows", "Rows entered in the ledger.")
        self.duplicates = self.counter(
            "quarterdeck_ledger_duplicates", "Records that were in the ledger already: a delivery that was repeated."
        )
        self.dead = self.counter(
            "quarterdeck_ledger_dead_records",
            "Records set aside on the dead stream: unreadable, or refused by the database.",
            ("reason",),
        )
        self.batch_seconds = self.histogram(
            "quarterdeck_ledger_batch_seconds", "From a batch read to its commit and acknowledgement.", _SECONDS
        )
        self.waiting = self.gauge("quarterdeck_ledger_waiting_records", "Records in the stream.", ("org",))
        self.lag_seconds = self.gauge(
            "quarterdeck_ledger_lag_seconds", "Age of the oldest record in the stream; 0: none waits.", ("org",)
        )
        self.dead_waiting = self.gauge(
            "quarterdeck_ledger_dead_waiting_records", "Records on the dead stream: somebody should look.", ("org",)
        )
        self.lost = self.counter(
            "quarterdeck_lost_requests", "Requests settled as lost: their gateway ended while they were under way."
        )
        self.traces_exported = self.counter("quarterdeck_traces_exported", "Spans that the trace sink has taken.")
        self.traces_dropped = self.counter(
            "quarterdeck_traces_dropped",
            "Spans that no sink will see: overflow (the backlog was full), refused (by the sink), unreadable.",
            ("reason",),
        )
        self.traces_waiting = self.gauge("quarterdeck_traces_waiting_records", "Records not exported yet.", ("org",))
        self.traces_up = self.gauge("quarterdeck_traces_up", "1: the trace sink took the last batch. 0: it did not.")
        self.redis_up = self.gauge("quarterdeck_redis_up", "1: Redis answers. 0: it does not.")
        self.database_up = self.gauge("quarterdeck_database_up", "1: the database answered last time. 0: it did not.")
