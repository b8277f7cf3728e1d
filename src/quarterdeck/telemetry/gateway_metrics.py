"""What a gateway counts. All that is about a finished request is projected from its record, as the ledger's row is."""

from collections import defaultdict

from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.metrics import DURATION_BUCKETS, TOKEN_BUCKETS, TTFT_BUCKETS, Metrics

WAIT_BUCKETS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds in a queue, up to the minutes in which an engine starts."""

ENTERED_TOGETHER = 64
"""Finished requests, which takes a tenth of a millisecond: nobody else has a turn meanwhile."""


class GatewayMetrics(Metrics):
    """`observe` enters a finished request; the rest is counted where it happens."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[RequestRecord] = []
        self.before_reading(self._enter)
        self.requests = self.counter(
            "quarterdeck_requests",
            "Finished requests to models, by the HTTP status the caller saw and the record's status.",
            ("operation", "model", "http_status", "status"),
        )
        self.duration = self.histogram(
            "quarterdeck_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            DURATION_BUCKETS,
            ("operation", "model"),
        )
        self.time_to_first_token = self.histogram(
            "quarterdeck_time_to_first_token_seconds",
            "From the request's head to the first piece of a streamed answer.",
            TTFT_BUCKETS,
            ("operation", "model"),
        )
        self.inter_token_latency = self.histogram(
            "quarterdeck_inter_token_latency_seconds",
            "Mean time between two tokens of a stream, entered once for each gap.",
            TOKEN_BUCKETS,
            ("operation", "model"),
        )
        self.tokens = self.counter(
            "quarterdeck_tokens",
            "Tokens, in kinds that don't overlap: input (uncached), cached, output (reasoning included).",
            ("model", "kind"),
        )
        self.cost = self.counter("quarterdeck_cost_dollars", "Dollars, as floats; the ledger has it exact.", ("model",))
        self.cache = self.counter(
            "quarterdeck_cache_requests",
            "Finished requests to models whose answers are kept: hit, miss, bypass.",
            ("model", "state"),
        )
        self.saved = self.counter("quarterdeck_cache_saved_dollars", "Dollars that hits would have cost.", ("model",))
        self.attempts = self.counter(
            "quarterdeck_endpoint_attempts",
            "Calls to endpoints, by our error code (`ok`: none).",
            ("endpoint", "outcome"),
        )
        self.errors = self.counter("quarterdeck_errors", "Answers that were errors, by their code.", ("code",))
        self.cancelled = self.counter(
            "quarterdeck_cancelled_requests", "Requests whose caller hung up before the end.", ("model",)
        )
        self.http_requests = self.counter(
            "quarterdeck_http_requests", "All requests, by route template and status.", ("route", "http_status")
        )
        self.authentications = self.counter(
            "quarterdeck_authentications", "Key checks: cached, found, unknown, revoked, unavailable.", ("outcome",)
        )
        self.in_flight = self.gauge("quarterdeck_requests_in_flight", "Requests under way in this gateway.")
        self.redis_up = self.gauge("quarterdeck_redis_up", "1: Redis answers. 0: it does not.")
        self.database_up = self.gauge("quarterdeck_database_up", "1: the database answered last time. 0: it did not.")
        self.spooled = self.counter("quarterdeck_spooled_records", "Records written to the spool: Redis was away.")
        self.spool_waiting = self.gauge("quarterdeck_spool_waiting_records", "Records in the spool, not replayed yet.")
        self.config_reloads = self.counter(
            "quarterdeck_config_reloads", "Reloads of quarterdeck.yaml: applied, refused.", ("outcome",)
        )
        self.endpoints = self.gauge("quarterdeck_endpoints", "Endpoints known, by state.", ("model", "state"))
        self._admission()
        self._routing()

    def _admission(self) -> None:
        self.refused = self.counter(
            "quarterdeck_admissions_refused",
            "Requests that admission refused, by reason (requests, tokens, concurrent, money, cold: the budget is being"
            " counted, full: too many records wait for the worker, redis: it is away) and whose bound it was (key,"
            " team, org).",
            ("reason", "scope"),
        )
        self.warned = self.counter(
            "quarterdeck_budget_warnings",
            "Requests admitted although a budget that only warns was exhausted, by whose it was (key, team, org).",
            ("scope",),
        )
        self.admitted_locally = self.counter(
            "quarterdeck_admissions_without_redis", "Requests admitted by this gateway alone: Redis was away."
        )
        self.subscription_up = self.gauge(
            "quarterdeck_subscription_up",
            "1: changes of keys at other gateways are heard. 0: keys are read each second.",
        )

    def _routing(self) -> None:
        self.queue_waiting = self.gauge("quarterdeck_queue_waiting_requests", "Requests that wait now.", ("model",))
        self.queue_waits = self.counter(
            "quarterdeck_queue_waits",
            "Requests that had to wait, by cause (busy: all places are taken, cold: no replica is ready) and outcome"
            " (served, timeout, full: not let in, cancelled).",
            ("model", "cause", "outcome"),
        )
        self.queue_seconds = self.histogram(
            "quarterdeck_queue_wait_seconds", "How long they waited.", WAIT_BUCKETS, ("model", "cause")
        )
        self.retries_denied = self.counter(
            "quarterdeck_retries_denied", "Failures not tried again: the route's retries were spent.", ("route",)
        )
        self.ejections = self.counter(
            "quarterdeck_endpoint_ejections", "How often an endpoint was put to rest for its failures.", ("endpoint",)
        )
        self.ejected = self.gauge(
            "quarterdeck_endpoints_ejected", "Endpoints left alone now, for failures or bad health checks.", ("model",)
        )
        self.resumes = self.counter(
            "quarterdeck_stream_resumes", "Streams that another endpoint went on with, each time.", ("model",)
        )

    def waited(self, model: str, cause: str, outcome: str, seconds: float) -> None:
        """A request waits no more, or was not let in."""
        self.queue_waits.add((model, cause, outcome))
        if outcome != "full":
            self.queue_seconds.observe(seconds, (model, cause))

    def observe(self, record: RequestRecord) -> None:
        """A request is over. It is entered with others: when they are enough, or when somebody reads."""
        self._records.append(record)
        if len(self._records) >= ENTERED_TOGETHER:
            self._enter()

    def _enter(self) -> None:
        records, self._records = self._records, []
        by_route: defaultdict[tuple[str, str], list[RequestRecord]] = defaultdict(list)
        for record in records:
            by_route[record.operation, record.model].append(record)
        for (operation, model), those in by_route.items():
            self._enter_times(operation, model, those)
            self._enter_use(model, those)
        self.errors.add_each([(record.error_code,) for record in records if record.error_code is not None])
        self.attempts.add_each(
            [(attempt.endpoint, attempt.error or "ok") for record in records for attempt in record.attempts]
        )

    def _enter_times(self, operation: str, model: str, records: list[RequestRecord]) -> None:
        """How they ended, and when."""
        route = (operation, model)
        self.requests.add_each([(operation, model, str(record.http_status), record.status) for record in records])
        self.duration.observe_all([record.ended - record.started for record in records], route)
        streams = [
            (record.started, record.first_token, record.ended, record.output_tokens - 1)
            for record in records
            if record.stream and record.first_token is not None
        ]
        if streams:
            self.time_to_first_token.observe_all([first - started for started, first, _, _ in streams], route)
        if gaps := [(ended - first, gaps) for _, first, ended, gaps in streams if gaps > 0]:
            self.inter_token_latency.observe_all(
                [seconds / gaps for seconds, gaps in gaps], route, [gaps for _, gaps in gaps]
            )

    def _enter_use(self, model: str, records: list[RequestRecord]) -> None:
        """What they took, what it cost, what they were spared."""
        prompt = sum([record.input_tokens for record in records])
        cached = sum([record.cached_tokens for record in records])
        output = sum([record.output_tokens for record in records])
        if prompt:
            self.tokens.add((model, "input"), prompt - cached)
        if cached:
            self.tokens.add((model, "cached"), cached)
        if output:
            self.tokens.add((model, "output"), output)
        if cost := sum([record.cost for record in records]):
            self.cost.add((model,), float(cost))
        if saved := sum([record.saved for record in records]):
            self.saved.add((model,), float(saved))
        self.cache.add_each([(model, record.cache) for record in records if record.cache != "off"])
        if resumed := sum([record.resumed for record in records]):
            self.resumes.add((model,), resumed)
        self.cancelled.add_each([(model,) for record in records if record.status == "cancelled"])
