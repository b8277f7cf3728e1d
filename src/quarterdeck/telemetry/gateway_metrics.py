"""The gateway's metrics. Those of finished requests are projections of their records, as ledger rows are."""

from collections import defaultdict

from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.gen_ai_metrics import GenAIMetrics
from quarterdeck.telemetry.metrics import DURATION_BUCKETS, TOKEN_BUCKETS, TTFT_BUCKETS, Metrics
from quarterdeck.telemetry.resource_metrics import ResourceMetrics
from quarterdeck.telemetry.saturation import SaturationMetrics

WAIT_BUCKETS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds in the queue, up to an engine's start of some minutes."""

BATCH = 64
"""Finished requests counted at once. 64 take a tenth of a millisecond, in which the event loop is blocked."""


class GatewayMetrics(Metrics):
    """`observe` counts a finished request; the other metrics are set where their events happen."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[RequestRecord] = []
        self.before_reading(self._flush_records)
        self.requests = self.counter(
            "quarterdeck_requests",
            "Finished requests to models, by the HTTP status sent and the record's status.",
            ("operation", "model", "http_status", "status"),
        )
        self.duration = self.histogram(
            "quarterdeck_request_duration_seconds",
            "Time from the request's head to the last byte of its answer.",
            DURATION_BUCKETS,
            ("operation", "model"),
        )
        self.time_to_first_token = self.histogram(
            "quarterdeck_time_to_first_token_seconds",
            "Time from the request's head to the first chunk of a streamed answer.",
            TTFT_BUCKETS,
            ("operation", "model"),
        )
        self.inter_token_latency = self.histogram(
            "quarterdeck_inter_token_latency_seconds",
            "Mean time between two tokens of a stream, counted once for each gap.",
            TOKEN_BUCKETS,
            ("operation", "model"),
        )
        self.tokens = self.counter(
            "quarterdeck_tokens",
            "Tokens by kind, without overlap: input (uncached), cached, output (including reasoning).",
            ("model", "kind"),
        )
        self.cost = self.counter(
            "quarterdeck_cost_dollars", "Cost in dollars, as a float; the ledger has exact amounts.", ("model",)
        )
        self.cache = self.counter(
            "quarterdeck_cache_requests",
            "Finished requests to models with a response cache: hit, miss, bypass.",
            ("model", "state"),
        )
        self.saved = self.counter("quarterdeck_cache_saved_dollars", "Cost in dollars saved by cache hits.", ("model",))
        self.attempts = self.counter(
            "quarterdeck_endpoint_attempts",
            "Calls to endpoints, by error code (`ok`: none).",
            ("endpoint", "outcome"),
        )
        self.errors = self.counter(
            "quarterdeck_errors",
            "Admitted requests that failed, by error code. Those refused before (400, 401, 404, 429) are in"
            " quarterdeck_http_requests, by status, and quarterdeck_admissions_refused.",
            ("code",),
        )
        self.cancelled = self.counter(
            "quarterdeck_cancelled_requests", "Requests whose client disconnected before the end.", ("model",)
        )
        self.http_requests = self.counter(
            "quarterdeck_http_requests", "All HTTP requests, by route template and status.", ("route", "http_status")
        )
        self.authentications = self.counter(
            "quarterdeck_authentications", "Key checks: cached, found, unknown, revoked, unavailable.", ("outcome",)
        )
        self.in_flight = self.gauge("quarterdeck_requests_in_flight", "Requests in progress in this gateway.")
        self.connections = self.gauge("quarterdeck_client_connections", "Open connections of clients.")
        self.connections_refused = self.counter(
            "quarterdeck_client_connections_refused",
            "Connections refused because all that the limit of file descriptors allows have a request in flight.",
        )
        self.connections_evicted = self.counter(
            "quarterdeck_client_connections_evicted",
            "Waiting connections closed for new ones, at the limit of file descriptors.",
        )
        self.access_lines_lost = self.counter(
            "quarterdeck_access_lines_lost", "Lines of the access log that could not be written."
        )
        self.job_failures = self.counter(
            "quarterdeck_job_failures", "Failures of background jobs, which are started again.", ("job",)
        )
        self.redis_up = self.gauge("quarterdeck_redis_up", "1 if Redis is available, else 0.")
        self.database_up = self.gauge("quarterdeck_database_up", "1 if the last database call succeeded, else 0.")
        self.spooled = self.counter(
            "quarterdeck_spooled_records", "Records written to the spool while Redis was unavailable."
        )
        self.spool_waiting = self.gauge(
            "quarterdeck_spool_waiting_records", "Records in the spool or in memory that are not in Redis yet."
        )
        self.spool_failures = self.counter(
            "quarterdeck_spool_write_failures", "Writes to the spool that its disk had no room for."
        )
        self.config_reloads = self.counter(
            "quarterdeck_config_reloads", "Reloads of quarterdeck.yaml: applied, refused.", ("outcome",)
        )
        self.endpoints = self.gauge("quarterdeck_endpoints", "Known endpoints, by state.", ("model", "state"))
        self.prompt_requests = self.counter(
            "quarterdeck_prompt_requests",
            "Finished requests that used a prompt, by its version and their status (ok, error, cancelled).",
            ("org", "prompt", "version", "status"),
        )
        self.prompt_cost = self.counter(
            "quarterdeck_prompt_cost_dollars",
            "Cost in dollars of requests that used a prompt.",
            ("org", "prompt", "version"),
        )
        self._admission()
        self._routing()
        self._teams()
        self.resources = ResourceMetrics(self)
        self.saturation = SaturationMetrics(self)
        self._gen_ai = GenAIMetrics(self, duration=self.duration, time_to_first_token=self.time_to_first_token)

    def _admission(self) -> None:
        self.refused = self.counter(
            "quarterdeck_admissions_refused",
            "Requests that admission refused, by reason (requests, tokens, concurrent, money, cold: the budget is being"
            " rebuilt, full: too many records wait for the worker, redis: Redis is unavailable) and scope of the limit"
            " (key, team, org).",
            ("reason", "scope"),
        )
        self.warned = self.counter(
            "quarterdeck_budget_warnings",
            "Requests admitted although a budget that only warns was exhausted, by scope (key, team, org).",
            ("scope",),
        )
        self.admitted_locally = self.counter(
            "quarterdeck_admissions_without_redis", "Requests admitted with local limits while Redis was unavailable."
        )
        self.subscription_up = self.gauge(
            "quarterdeck_subscription_up",
            "1 if changes of keys arrive from other gateways, 0 if keys are polled each second.",
        )

    def _routing(self) -> None:
        self.queue_waiting = self.gauge("quarterdeck_queue_waiting_requests", "Requests in the queue.", ("model",))
        self.queue_waits = self.counter(
            "quarterdeck_queue_waits",
            "Requests that had to wait, by cause (busy: every replica is at capacity, cold: no replica is ready) and"
            " outcome (served, timeout, full: the queue was full, cancelled).",
            ("model", "cause", "outcome"),
        )
        self.queue_seconds = self.histogram(
            "quarterdeck_queue_wait_seconds", "Time in the queue.", WAIT_BUCKETS, ("model", "cause")
        )
        self.retries_denied = self.counter(
            "quarterdeck_retries_denied",
            "Failures that were not retried because the route's retry budget was exhausted.",
            ("route",),
        )
        self.ejections = self.counter(
            "quarterdeck_endpoint_ejections", "Ejections of an endpoint for its failures.", ("endpoint",)
        )
        self.ejected = self.gauge(
            "quarterdeck_endpoints_ejected",
            "Endpoints currently ejected, for failures or failed health checks.",
            ("model",),
        )
        self.resting = self.gauge(
            "quarterdeck_endpoints_resting",
            "Endpoints currently left alone because they are full or refuse the gateway's account.",
            ("model",),
        )
        self.resumes = self.counter(
            "quarterdeck_stream_resumes", "Streams resumed on another endpoint, counted at each resume.", ("model",)
        )

    def _teams(self) -> None:
        self.team_requests = self.counter(
            "quarterdeck_team_requests",
            "Finished requests to models by the organisation and team of their key, and the record's status.",
            ("org", "team", "status"),
        )
        self.team_tokens = self.counter(
            "quarterdeck_team_tokens",
            "Tokens by organisation and team: input (cached ones included), output (including reasoning).",
            ("org", "team", "kind"),
        )
        self.team_cost = self.counter(
            "quarterdeck_team_cost_dollars", "Cost in dollars, by organisation and team.", ("org", "team")
        )

    def waited(self, model: str, cause: str, outcome: str, seconds: float) -> None:
        """Count a request that leaves the queue or was refused by it. `seconds`: its wait."""
        self.queue_waits.add((model, cause, outcome))
        if outcome != "full":
            self.queue_seconds.observe(seconds, (model, cause))

    def observe(self, record: RequestRecord) -> None:
        """Count a finished request, in batches: when one is full, or before a metric is read."""
        self._records.append(record)
        if len(self._records) >= BATCH:
            self._flush_records()

    def _flush_records(self) -> None:
        records, self._records = self._records, []
        by_route: defaultdict[tuple[str, str], list[RequestRecord]] = defaultdict(list)
        for record in records:
            by_route[record.operation, record.model].append(record)
        for (operation, model), those in by_route.items():
            self._count_times(operation, model, those)
            self._count_usage(model, those)
            self._gen_ai.count(operation, model, those)
        self._count_teams(records)
        prompted = [
            (record, (record.org, record.prompt, record.prompt_version or "")) for record in records if record.prompt
        ]
        self.prompt_requests.add_each([(*version, record.status) for record, version in prompted])
        for record, version in prompted:
            self.prompt_cost.add(version, float(record.cost))
        self.errors.add_each([(record.error_code,) for record in records if record.error_code is not None])
        self.attempts.add_each(
            [(attempt.endpoint, attempt.error or "ok") for record in records for attempt in record.attempts]
        )

    def _count_times(self, operation: str, model: str, records: list[RequestRecord]) -> None:
        """Count statuses and times."""
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

    def _count_teams(self, records: list[RequestRecord]) -> None:
        by_team: defaultdict[tuple[str, str], list[RequestRecord]] = defaultdict(list)
        for record in records:
            by_team[record.org, record.team].append(record)
        for (org, team), those in by_team.items():
            self.team_requests.add_each([(org, team, record.status) for record in those])
            if prompt := sum([record.input_tokens for record in those]):
                self.team_tokens.add((org, team, "input"), prompt)
            if output := sum([record.output_tokens for record in those]):
                self.team_tokens.add((org, team, "output"), output)
            if cost := sum([record.cost for record in those]):
                self.team_cost.add((org, team), float(cost))

    def _count_usage(self, model: str, records: list[RequestRecord]) -> None:
        """Count tokens, costs, savings, resumes and cancellations."""
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
