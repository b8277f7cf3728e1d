"""Recording rules and alerts as Prometheus' rule files, and a runbook page for each alert."""

from dataclasses import dataclass
from typing import Any, Literal

import yaml

from observability.queries import error_ratio, quantile, rate, slow_ratio

AVAILABILITY = 0.995
"""Of requests in 30 days: the objective behind the burn-rate alerts."""
FAST_FIRST_TOKEN = 0.95
"""Share of streamed answers whose first token comes within SLOW_SECONDS."""
SLOW_SECONDS = 2.5
WINDOWS = ("5m", "30m", "1h", "6h")
BURNS = (("critical", 14.4, "1h", "5m", "2m"), ("warning", 6.0, "6h", "30m", "15m"))
"""severity, rate, long and short window, for: 2 % of the 30 days' error budget in an hour, 5 % in six hours (Google's
SRE workbook, chapter 5). The short window ends the alert soon after the cause."""


@dataclass(frozen=True)
class Recording:
    record: str
    expr: str


@dataclass(frozen=True)
class Alert:
    name: str
    severity: Literal["critical", "warning"]
    expr: str
    wait: str
    """How long the expression must hold."""
    summary: str
    """One line, with `{{ $labels.x }}` and `{{ $value }}`."""
    meaning: str
    impact: str
    checks: tuple[str, ...]
    remedies: tuple[str, ...]


RECORDINGS = (
    Recording("quarterdeck:requests:rate5m", rate("quarterdeck_requests_total", by="model, status", window="5m")),
    Recording("quarterdeck:tokens:rate5m", rate("quarterdeck_tokens_total", by="model, kind", window="5m")),
    Recording("quarterdeck:cost_dollars:rate1h", rate("quarterdeck_cost_dollars_total", by="model", window="1h")),
    Recording(
        "quarterdeck:team_cost_dollars:rate1h", rate("quarterdeck_team_cost_dollars_total", by="org, team", window="1h")
    ),
    *(
        Recording(f"quarterdeck:{name}:p{share * 100:.0f}_5m", quantile(share, metric, by="model", window="5m"))
        for name, metric in (
            ("request_duration_seconds", "quarterdeck_request_duration_seconds"),
            ("time_to_first_token_seconds", "quarterdeck_time_to_first_token_seconds"),
        )
        for share in (0.5, 0.95, 0.99)
    ),
    *(Recording(f"quarterdeck:request_errors:ratio_rate{window}", error_ratio(window)) for window in WINDOWS),
    *(
        Recording(f"quarterdeck:slow_first_tokens:ratio_rate{window}", slow_ratio(SLOW_SECONDS, window))
        for window in WINDOWS
    ),
)


def burn(record: str, objective: float, factor: float, long: str, short: str) -> str:
    """Both windows burn the error budget `factor` times as fast as the objective allows."""
    bound = round(factor * (1 - objective), 6)
    return f"quarterdeck:{record}:ratio_rate{long} > {bound} and quarterdeck:{record}:ratio_rate{short} > {bound}"


def _burn_alerts() -> tuple[Alert, ...]:
    made = []
    for severity, factor, long, short, wait in BURNS:
        speed = "Fast" if severity == "critical" else "Slow"
        made.append(
            Alert(
                name=f"QuarterdeckErrorBudgetBurn{speed}",
                severity="critical" if severity == "critical" else "warning",
                expr=burn("request_errors", AVAILABILITY, factor, long, short),
                wait=wait,
                summary=f"{{{{ $value | humanizePercentage }}}} of requests failed in the last {long}",
                meaning=(
                    f"Of all requests, so many fail by the platform's or an engine's fault that the error budget of"
                    f" {1 - AVAILABILITY:.1%} in 30 days is used {factor:g} times too fast. 4xx do not count."
                ),
                impact="Callers get 5xx, or streams that end with an error event.",
                checks=(
                    "Overview, *Failed by model* and *Errors of admitted requests*: one model or all? Which code?",
                    "`quarterdeck status`: which part or model is not ready?",
                    "Gateway, *Failed calls by endpoint*: one engine or all of them?",
                    "The gateway's log has a line with `error` for each failed request.",
                ),
                remedies=(
                    "`engine_…` codes: see [QuarterdeckModelDown](QuarterdeckModelDown.md)"
                    " and the engine's log (`<state>/logs/engine.log`).",
                    "`limits_unavailable`: see [QuarterdeckRedisUnreachable](QuarterdeckRedisUnreachable.md).",
                    "`database_unavailable`, `auth_unavailable`: see"
                    " [QuarterdeckDatabaseUnreachable](QuarterdeckDatabaseUnreachable.md).",
                    "After a change of the configuration: put the former file back; it is in force within a second.",
                ),
            )
        )
        made.append(
            Alert(
                name=f"QuarterdeckSlowFirstTokens{speed}",
                severity="critical" if severity == "critical" else "warning",
                expr=burn("slow_first_tokens", FAST_FIRST_TOKEN, factor, long, short),
                wait=wait,
                summary=f"{{{{ $value | humanizePercentage }}}} of first tokens were late in the last {long}",
                meaning=(
                    f"Too many streamed answers take longer than {SLOW_SECONDS:g} s to their first token"
                    f" (the objective: {FAST_FIRST_TOKEN:.0%} are faster)."
                ),
                impact="Users wait. Clients with short time-outs give up and try again, which adds load.",
                checks=(
                    "Models and engines, *Sequences* and *KV cache*: do the engines have a queue?",
                    "Gateway, *Waiting*: do requests wait for a place?",
                    "Models and engines, *Prefill*: have prompts become longer? *Prefix cache*: is its share lower?",
                    "Gateway, *Event loop lag* and *CPU*: is a gateway's core full?",
                ),
                remedies=(
                    "Engines are full: add replicas, or lower `max_running` so that the fair queue decides who waits.",
                    "A gateway's core is full: add gateways.",
                    "One key floods: lower its limits (`quarterdeck keys update`).",
                ),
            )
        )
    return tuple(made)


ALERTS = (
    *_burn_alerts(),
    Alert(
        name="QuarterdeckGatewayDown",
        severity="critical",
        expr='up{job="quarterdeck-gateway"} == 0',
        wait="1m",
        summary="The gateway {{ $labels.instance }} does not answer Prometheus",
        meaning="`/metrics` of a gateway could not be read for a minute.",
        impact="If it is the only gateway, no request is served.",
        checks=("Is the process running? `GET /healthz` on its port.", "The last lines of its log."),
        remedies=(
            "It ended: `up` and Kubernetes start it again; the log says why it ended.",
            "It does not answer: *Event loop lag* and *File descriptors* before that moment.",
        ),
    ),
    Alert(
        name="QuarterdeckWorkerDown",
        severity="critical",
        expr='absent(up{job="quarterdeck-worker"} == 1)',
        wait="5m",
        summary="No worker is running",
        meaning="No worker has answered Prometheus for five minutes.",
        impact=(
            "Requests are served. Records wait in Redis and take memory there; budgets that start cold are refused;"
            " requests of gateways that died hold their reservations."
        ),
        checks=("The worker's log, and `GET /readyz` on its port.",),
        remedies=("Start a worker. It takes all records that wait.",),
    ),
    Alert(
        name="QuarterdeckModelDown",
        severity="critical",
        expr=(
            'sum by (model) (quarterdeck_endpoints{state="ready"})'
            " - sum by (model) (quarterdeck_endpoints_ejected) <= 0"
        ),
        wait="2m",
        summary="No endpoint can answer for the model {{ $labels.model }}",
        meaning="Each endpoint of a model is starting, draining or ejected for its failures.",
        impact="Requests to the model are 503, or go to a fallback if its route has one.",
        checks=(
            "`quarterdeck models` and `/readyz` say why each endpoint is not ready.",
            "Gateway, *Failed calls by endpoint*: with which error?",
            "The engine's log (`<state>/logs/engine.log`), and its `GET /endpoints`.",
        ),
        remedies=(
            "An engine that ended is started again by Ray Serve; out of memory: a smaller context or quantization.",
            "A hosted endpoint: its key, its quota, its address.",
        ),
    ),
    Alert(
        name="QuarterdeckEndpointEjected",
        severity="warning",
        expr="sum by (model) (quarterdeck_endpoints_ejected) > 0",
        wait="5m",
        summary="{{ $value }} endpoints of {{ $labels.model }} are left out for their failures",
        meaning="An endpoint has failed several requests or health checks and gets none, except a probe now and then.",
        impact="The other endpoints carry its load.",
        checks=("Gateway, *Failed calls by endpoint*.", "The endpoint's own log."),
        remedies=("It returns by itself after one request that succeeds.",),
    ),
    Alert(
        name="QuarterdeckQueueFull",
        severity="warning",
        expr='sum by (model) (rate(quarterdeck_queue_waits_total{outcome=~"full|timeout"}[5m])) > 0',
        wait="5m",
        summary="Requests to {{ $labels.model }} are refused because its queue is full or slow",
        meaning=(
            "All places of a model's endpoints are taken, and requests wait longer than `max_wait_seconds` or find no"
            " place in the queue."
        ),
        impact="Callers get 429 `queue_full` or 503 `queue_timeout` with a Retry-After.",
        checks=("Gateway, *Waiting* and *Wait*.", "Cost and use, *Requests by team*: who sends most?"),
        remedies=("More replicas; limits for the team that floods; a fallback on the route.",),
    ),
    Alert(
        name="QuarterdeckRedisUnreachable",
        severity="critical",
        expr="min by (job, instance) (quarterdeck_redis_up) == 0",
        wait="1m",
        summary="{{ $labels.job }} {{ $labels.instance }} can't reach Redis",
        meaning="Commands to Redis fail or get no reply in time.",
        impact=(
            "Limits are enforced from each gateway's local share (`on_redis_down: allow`) or requests are refused"
            " (`deny`); requests of keys with a budget are 503. Records go to the spool. The response cache is off."
        ),
        checks=(
            "`redis-cli -u $QUARTERDECK_REDIS_URL ping`, and Redis' log.",
            "Records, *Round trips* and *Redis' memory* before that moment.",
        ),
        remedies=(
            "Bring Redis back. Nothing else is to be done: spooled records are replayed, budgets are counted again.",
            "Watch the disk of `<state>/spool` meanwhile.",
        ),
    ),
    Alert(
        name="QuarterdeckRedisMemory",
        severity="warning",
        expr="max(quarterdeck_redis_memory_bytes / (quarterdeck_redis_memory_limit_bytes > 0)) > 0.85",
        wait="5m",
        summary="Redis uses {{ $value | humanizePercentage }} of its memory",
        meaning="Redis is near its maxmemory. With `noeviction` it then refuses writes.",
        impact="At the limit, admission and settlement fail as if Redis were away.",
        checks=(
            "Records, *Waiting records*: is the worker behind?",
            "`GET /admin/cache` of each organisation: the response cache has its own bound (`cache.max_mb`).",
        ),
        remedies=("Raise maxmemory; lower `cache.max_mb`; add workers if records wait.",),
    ),
    Alert(
        name="QuarterdeckDatabaseUnreachable",
        severity="critical",
        expr="min by (job, instance) (quarterdeck_database_up) == 0",
        wait="1m",
        summary="{{ $labels.job }} {{ $labels.instance }} can't reach the database",
        meaning="The last call to the database failed.",
        impact=(
            "Keys in memory stay valid; other keys are 503 `auth_unavailable`. The admin API and usage are 503. Records"
            " wait in Redis."
        ),
        checks=("The database's own log; connections in use; whether it is a standby (25006) after a fail-over.",),
        remedies=("Bring it back. Waiting records are inserted by themselves.",),
    ),
    Alert(
        name="QuarterdeckRecordsUnsaved",
        severity="critical",
        expr="sum by (instance) (rate(quarterdeck_spool_write_failures_total[5m])) > 0",
        wait="0m",
        summary="{{ $labels.instance }} can't write its spool",
        meaning="Redis is away and the disk of the spool has no room.",
        impact="Requests are refused with 503 `records_unavailable`, so that none goes without a record.",
        checks=("`df` on `<state>/spool`.",),
        remedies=("Make room on the disk, or bring Redis back. The gateway continues by itself.",),
    ),
    Alert(
        name="QuarterdeckSpoolWaiting",
        severity="warning",
        expr="sum by (instance) (quarterdeck_spool_waiting_records) > 0",
        wait="15m",
        summary="{{ $value }} records wait in the spool of {{ $labels.instance }}",
        meaning="Records were written to the spool while Redis was away, and are not in Redis yet.",
        impact="Ledger and traces lack these requests for now.",
        checks=("Is Redis reachable from this gateway? Its log says why a replay failed.",),
        remedies=("They are replayed while the gateway runs. Start it again with its state folder if it was stopped.",),
    ),
    Alert(
        name="QuarterdeckLedgerLag",
        severity="warning",
        expr="max by (org) (quarterdeck_ledger_lag_seconds) > 60",
        wait="5m",
        summary="Records of {{ $labels.org }} reach the ledger {{ $value | humanizeDuration }} late",
        meaning="The worker inserts more slowly than requests end, or not at all.",
        impact="Usage reports are behind. Budgets are not: they are counted in Redis.",
        checks=("Records, *Rows*, *Batch* and *Round trips*.", "CPU of the worker and of the database."),
        remedies=("More workers (on Postgres); a faster disk.",),
    ),
    Alert(
        name="QuarterdeckDeadRecords",
        severity="warning",
        expr="sum by (org) (quarterdeck_ledger_dead_waiting_records) > 0",
        wait="0m",
        summary="{{ $value }} records of {{ $labels.org }} could not be inserted",
        meaning="The worker could not read a record, or the database refused it, and it was put aside.",
        impact="These requests are missing in the ledger; their money is in the budget.",
        checks=("`redis-cli XRANGE dead:{ORG} - +` shows each record and the reason.",),
        remedies=("Report it: this is a defect, or a record of a newer version.",),
    ),
    Alert(
        name="QuarterdeckLostRequests",
        severity="warning",
        expr="increase(quarterdeck_lost_requests_total[15m]) > 0",
        wait="0m",
        summary="{{ $value | humanize }} requests were lost with their gateway",
        meaning="A gateway died with requests in progress; the worker settled them as `lost`.",
        impact="Their clients saw a broken connection. What they cost is not known and is not billed.",
        checks=("Which gateway ended: its log, the supervisor's or the kernel's (out of memory).",),
        remedies=("None for these requests. Drain gateways with SIGTERM, and give them time.",),
    ),
    Alert(
        name="QuarterdeckTracesDropped",
        severity="warning",
        expr="sum by (sink, reason) (rate(quarterdeck_traces_dropped_total[5m])) > 0",
        wait="5m",
        summary="Traces to {{ $labels.sink }} are dropped: {{ $labels.reason }}",
        meaning="overflow: the trace backend takes fewer traces than there are; refused: it answered an error.",
        impact="Traces are missing. The ledger is complete.",
        checks=("The worker's log and `/readyz` name the backend's answer.", "Records, *Traces* and *Sinks*."),
        remedies=("Credentials and address of the backend; its size; sampling.",),
    ),
    Alert(
        name="QuarterdeckConfigRefused",
        severity="warning",
        expr='increase(quarterdeck_config_reloads_total{outcome="refused"}[10m]) > 0',
        wait="0m",
        summary="{{ $labels.instance }} refused a configuration",
        meaning="The file is invalid. The previous configuration stays in force.",
        impact="The change is not in force; a gateway that starts now does not start.",
        checks=("`quarterdeck status` shows the error with its line.",),
        remedies=("Correct the file. It is read again within a second.",),
    ),
    Alert(
        name="QuarterdeckOutOfConnections",
        severity="warning",
        expr="sum by (instance) (rate(quarterdeck_client_connections_refused_total[5m])) > 0",
        wait="2m",
        summary="{{ $labels.instance }} refuses connections",
        meaning="Every connection that the limit of file descriptors allows has a request in flight.",
        impact="New clients get 503 `overloaded`.",
        checks=("Gateway, *File descriptors* and *Client connections*.", "`quarterdeck doctor` shows the limit."),
        remedies=("Raise the limit (`ulimit -n`, LimitNOFILE); add gateways; lower the limits of a key that floods.",),
    ),
    Alert(
        name="QuarterdeckJobFailing",
        severity="warning",
        expr="sum by (instance, job) (rate(quarterdeck_job_failures_total[10m])) > 0",
        wait="10m",
        summary="A background job of {{ $labels.instance }} keeps failing",
        meaning="A job of the gateway (configuration, health checks …) ends with an error and is restarted.",
        impact="What the job does is late.",
        checks=("The gateway's log: `background job failed`, with the trace.",),
        remedies=("Report it unless the log names a cause on this machine (descriptors, disk).",),
    ),
    Alert(
        name="QuarterdeckJobsWait",
        severity="warning",
        expr='max by (kind) (quarterdeck_jobs_oldest_seconds{kind="response"}) > 600',
        wait="5m",
        summary="Background responses have been waiting for {{ $value | humanizeDuration }}",
        meaning="A background response was queued ten minutes ago and has not begun, or waits to be repeated.",
        impact="Clients that poll for it see `queued`. After a day it fails.",
        checks=(
            "Records, *Jobs*: whether the queue grows, and whether attempts end as retried.",
            "The worker's log: it names what an attempt failed with. `quarterdeck status`: whether a worker runs.",
            "Gateway, *Refused*: whether its key has reached a limit.",
        ),
        remedies=(
            "Start workers, or more of them; raise the limits of the key; add replicas of the model.",
            "A worker that can't reach the gateway needs QUARTERDECK_GATEWAY_URL.",
        ),
    ),
    Alert(
        name="QuarterdeckBatchStuck",
        severity="warning",
        expr=(
            'sum(quarterdeck_jobs_running{kind="batch"}) > 0'
            " and (sum(increase(quarterdeck_batch_requests_total[30m])) or vector(0)) == 0"
        ),
        wait="30m",
        summary="Batches are executed, but none of their requests has ended for an hour",
        meaning="Workers run batches whose requests find no room, or are not answered.",
        impact="The batches expire at the end of their window, with what was done by then.",
        checks=(
            "Records, *Batches*: refusals for want of room.",
            "Models and engines, *Sequences*: whether live traffic fills the engines.",
            "The worker's log: what requests of batches fail with.",
        ),
        remedies=(
            "Add replicas of the model, or raise `batches.busy_share`: the share that batches get of a busy endpoint.",
            "Raise limits and budgets of the key that created the batch.",
        ),
    ),
    Alert(
        name="QuarterdeckFilesStorage",
        severity="warning",
        expr='sum by (outcome) (rate(quarterdeck_file_writes_total{outcome=~"full|unavailable"}[10m])) > 0',
        wait="10m",
        summary="Files can't be stored: the storage is {{ $labels.outcome }}",
        meaning="Uploads fail because the storage of files has no room, or it or the database is not available.",
        impact="Clients get 507 `storage_full` or 503 `storage_unavailable`; batches can't write their results.",
        checks=(
            "`/readyz`, part `files`, and the gateway's log: `storage of files`, with the reason.",
            "`quarterdeck doctor` on that machine writes a blob and reads it.",
        ),
        remedies=("Make room, or lower `files.max_gb_per_org`; mend the bucket's address, credentials or network.",),
    ),
    Alert(
        name="QuarterdeckEngineCacheFull",
        severity="warning",
        expr="max by (model_name, instance) (vllm:kv_cache_usage_perc) > 0.95",
        wait="10m",
        summary="The KV cache of {{ $labels.model_name }} at {{ $labels.instance }} is full",
        meaning="The engine holds as many tokens as fit; further sequences wait or are preempted.",
        impact="Time to first token grows; preempted sequences are computed twice.",
        checks=("Models and engines, *Sequences*, *Preemptions*, *Tokens per request*.",),
        remedies=("More replicas; a smaller context; a quantized KV cache; lower `max_running`.",),
    ),
)


def recording_rules() -> str:
    rules = [{"record": each.record, "expr": each.expr} for each in RECORDINGS]
    return _yaml({"groups": [{"name": "quarterdeck-recording", "interval": "30s", "rules": rules}]})


def alert_rules() -> str:
    rules = [
        {
            "alert": each.name,
            "expr": each.expr,
            "for": each.wait,
            "labels": {"severity": each.severity},
            "annotations": {"summary": each.summary, "runbook": f"docs/operations/runbooks/{each.name}.md"},
        }
        for each in ALERTS
    ]
    return _yaml({"groups": [{"name": "quarterdeck-alerts", "rules": rules}]})


def runbook(alert: Alert) -> str:
    """The page of an alert."""
    hold = f" for {alert.wait}" if alert.wait != "0m" else ""
    return "\n".join(
        [
            f"# {alert.name}\n",
            f"Severity: {alert.severity}. {alert.meaning}\n",
            f"**Impact.** {alert.impact}\n",
            "**Check**\n",
            *(f"{number}. {each}" for number, each in enumerate(alert.checks, 1)),
            "\n**Mend**\n",
            *(f"- {each}" for each in alert.remedies),
            f"\n**Fires** when this holds{hold}:\n",
            f"```promql\n{alert.expr}\n```",
        ]
    )


def runbook_index() -> str:
    return "\n".join(
        [
            "# Alerts\n",
            "The rules are in [observability/rules](../../../observability/rules). Panels are named as in the"
            " [dashboards](../dashboards.md).\n",
            "| alert | severity | meaning |",
            "|---|---|---|",
            *(f"| [{each.name}]({each.name}.md) | {each.severity} | {each.meaning} |" for each in ALERTS),
        ]
    )


def _yaml(document: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
    return text
