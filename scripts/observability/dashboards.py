"""The dashboards. One row per question: rate, errors and duration first, then saturation."""

from observability.grafana import Dashboard, Panel, Query, Row, Variable
from observability.panels import MODEL, latency, lines, single
from observability.queries import FAILED, RATE, SERVED, error_ratio, mean, quantile, rare, rate
from observability.ray_dashboard import RAY

MODELS = Variable("model", "Model", "label_values(quarterdeck_requests_total, model)")
TEAM = 'org=~"$org",team=~"$team"'
TEAMS = (
    Variable("org", "Organisation", "label_values(quarterdeck_team_requests_total, org)"),
    Variable("team", "Team", 'label_values(quarterdeck_team_requests_total{org=~"$org"}, team)'),
)
VLLM = 'model_name=~"$model"'


OVERVIEW = Dashboard(
    uid="quarterdeck-overview",
    title="Quarterdeck / Overview",
    description="Whether the platform serves, how fast, and what it costs.",
    variables=(MODELS,),
    rows=(
        Row(
            "Now",
            (
                single(
                    "Requests",
                    "Requests of users per second, probes left out.",
                    rate("quarterdeck_http_requests_total", SERVED),
                    unit="reqps",
                ),
                single(
                    "Failed",
                    "Requests that failed by the platform's or an engine's fault: 5xx, and streams that broke off.",
                    error_ratio(RATE),
                    unit="percentunit",
                ),
                single(
                    "First token, p95",
                    "Streamed answers: time from the request's head to the first chunk.",
                    quantile(0.95, "quarterdeck_time_to_first_token_seconds", MODEL),
                    unit="s",
                ),
                single(
                    "Tokens", "Generated tokens per second.", rate("quarterdeck_tokens_total", f'{MODEL},kind="output"')
                ),
                single("In flight", "Requests in progress in all gateways.", "sum(quarterdeck_requests_in_flight)"),
                single(
                    "Cost per hour",
                    "At the rate of the interval shown.",
                    f"3600 * {rate('quarterdeck_cost_dollars_total', MODEL)}",
                    unit="currencyUSD",
                ),
            ),
        ),
        Row(
            "Requests",
            (
                lines(
                    "Requests by model",
                    "Finished requests to models.",
                    Query(rate("quarterdeck_requests_total", MODEL, by="model"), "{{model}}"),
                    unit="reqps",
                ),
                lines(
                    "Failed by model",
                    "Records with the status error or lost, without those that the caller caused.",
                    Query(
                        rare("quarterdeck_requests_total", f"{MODEL},{FAILED}", by="model, http_status"),
                        "{{model}} {{http_status}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Errors of admitted requests",
                    "The codes that clients are sent.",
                    Query(rare("quarterdeck_errors_total", by="code"), "{{code}}"),
                    unit="reqps",
                ),
                latency(
                    "Duration",
                    "quarterdeck_request_duration_seconds",
                    "From the request's head to the last byte of its answer.",
                ),
                latency("Time to first token", "quarterdeck_time_to_first_token_seconds", "Streamed answers."),
                latency(
                    "Time between tokens",
                    "quarterdeck_inter_token_latency_seconds",
                    "Mean of each stream, weighted by its tokens.",
                ),
            ),
        ),
        Row(
            "Use",
            (
                lines(
                    "Tokens by kind",
                    "input: prompt tokens not cached; cached: in the engine's prefix cache; output: generated.",
                    Query(rate("quarterdeck_tokens_total", MODEL, by="kind"), "{{kind}}"),
                ),
                lines(
                    "Response cache",
                    "Requests to models whose answers are kept, by outcome.",
                    Query(rate("quarterdeck_cache_requests_total", MODEL, by="state"), "{{state}}"),
                    unit="reqps",
                ),
                lines(
                    "Endpoints",
                    "Known endpoints by state.",
                    Query(f"sum by (model, state) (quarterdeck_endpoints{{{MODEL}}})", "{{model}} {{state}}"),
                ),
            ),
        ),
    ),
)

GATEWAY = Dashboard(
    uid="quarterdeck-gateway",
    title="Quarterdeck / Gateway",
    description="What the gateways do with requests, and how busy they are.",
    variables=(MODELS,),
    rows=(
        Row(
            "HTTP",
            (
                lines(
                    "Requests by route",
                    "All HTTP requests, by route template.",
                    Query(rate("quarterdeck_http_requests_total", by="route"), "{{route}}"),
                    unit="reqps",
                ),
                lines(
                    "Responses by status",
                    "All HTTP responses.",
                    Query(rate("quarterdeck_http_requests_total", by="http_status"), "{{http_status}}"),
                    unit="reqps",
                ),
                lines(
                    "Key checks",
                    "cached: in memory; found: read from the database; unknown, revoked, unavailable.",
                    Query(rate("quarterdeck_authentications_total", by="outcome"), "{{outcome}}"),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Admission and queue",
            (
                lines(
                    "Refused",
                    "By the limit that was reached and whose it is.",
                    Query(rare("quarterdeck_admissions_refused_total", by="reason, scope"), "{{reason}} of {{scope}}"),
                    unit="reqps",
                ),
                lines(
                    "Admitted otherwise",
                    "Over a budget that only warns, and with local limits while Redis was unavailable.",
                    Query(rare("quarterdeck_budget_warnings_total", by="scope"), "over the budget of {{scope}}"),
                    Query(rate("quarterdeck_admissions_without_redis_total"), "without Redis"),
                    unit="reqps",
                ),
                lines(
                    "Waiting",
                    "Requests in the queue.",
                    Query(f"sum by (model) (quarterdeck_queue_waiting_requests{{{MODEL}}})", "{{model}}"),
                ),
                lines(
                    "Waits by outcome",
                    "Requests that had to wait: served, timeout, full, cancelled.",
                    Query(rate("quarterdeck_queue_waits_total", MODEL, by="cause, outcome"), "{{cause}} {{outcome}}"),
                    unit="reqps",
                ),
                latency("Wait", "quarterdeck_queue_wait_seconds", "Time in the queue."),
            ),
        ),
        Row(
            "Endpoints",
            (
                lines(
                    "Calls by outcome",
                    "Calls to endpoints; a request that is tried again has several.",
                    Query(rate("quarterdeck_endpoint_attempts_total", by="outcome"), "{{outcome}}"),
                    unit="reqps",
                ),
                lines(
                    "Failed calls by endpoint",
                    "By error code.",
                    Query(
                        rare("quarterdeck_endpoint_attempts_total", 'outcome!="ok"', by="endpoint, outcome"),
                        "{{endpoint}} {{outcome}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Left out",
                    "Endpoints that get no requests now: ejected for failures, resting because they are full.",
                    Query(f"sum by (model) (quarterdeck_endpoints_ejected{{{MODEL}}})", "{{model}} ejected"),
                    Query(f"sum by (model) (quarterdeck_endpoints_resting{{{MODEL}}})", "{{model}} resting"),
                ),
                lines(
                    "Ejections",
                    "Per second, by endpoint.",
                    Query(rare("quarterdeck_endpoint_ejections_total", by="endpoint"), "{{endpoint}}"),
                ),
                lines(
                    "Retries denied",
                    "Failures that were not retried because the route's retry budget was exhausted.",
                    Query(rare("quarterdeck_retries_denied_total", by="route"), "{{route}}"),
                ),
                lines(
                    "Resumed streams",
                    "Streams that another endpoint continued.",
                    Query(rare("quarterdeck_stream_resumes_total", MODEL, by="model"), "{{model}}"),
                ),
                lines(
                    "Cancelled requests",
                    "Clients that disconnected before the end.",
                    Query(rare("quarterdeck_cancelled_requests_total", MODEL, by="model"), "{{model}}"),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Tools and files",
            (
                lines(
                    "Tool calls",
                    "Of responses, by server and outcome; public: servers that the operator has not listed.",
                    Query(rare("quarterdeck_tool_calls_total", by="server, outcome"), "{{server}} {{outcome}}"),
                    unit="reqps",
                ),
                lines(
                    "Failed tool calls",
                    "By tool and outcome.",
                    Query(
                        rare("quarterdeck_tool_calls_total", 'outcome!="ok"', by="server, tool, outcome"),
                        "{{server}}.{{tool}} {{outcome}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Duration of tool calls",
                    "95th percentile by server and tool.",
                    Query(
                        f"{quantile(0.95, 'quarterdeck_tool_call_duration_seconds', by='server, tool')} or vector(0)",
                        "{{server}}.{{tool}}",
                    ),
                    unit="s",
                ),
                lines(
                    "Contents of files",
                    "Files, parts of uploads and uploads begun: stored, refused (quota, size), failed.",
                    Query(rare("quarterdeck_file_writes_total", by="kind, outcome"), "{{kind}} {{outcome}}"),
                    unit="reqps",
                ),
                lines(
                    "Bytes of files",
                    "Stored per second.",
                    Query(rare("quarterdeck_file_bytes_total", by="kind"), "{{kind}}"),
                    unit="Bps",
                ),
                lines(
                    "Stored files",
                    "What counts toward the quota, by organisation.",
                    Query("max by (org) (quarterdeck_files_stored_bytes) or vector(0)", "{{org}}"),
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Saturation",
            (
                lines(
                    "CPU",
                    "Cores that each process uses. One gateway uses one core at most.",
                    Query(f"rate(process_cpu_seconds_total[{RATE}])", "{{job}} {{instance}}"),
                ),
                lines(
                    "Memory",
                    "Resident set.",
                    Query("process_resident_memory_bytes", "{{job}} {{instance}}"),
                    unit="bytes",
                ),
                lines(
                    "File descriptors",
                    "Share of the limit in use.",
                    Query("process_open_fds / process_max_fds", "{{job}} {{instance}}"),
                    unit="percentunit",
                ),
                latency(
                    "Event loop lag",
                    "quarterdeck_event_loop_lag_seconds",
                    "How late the event loop was, sampled once a second.",
                    matchers="",
                    by="job",
                ),
                lines(
                    "Client connections",
                    "Open ones, and those refused or evicted per second at the limit of file descriptors.",
                    Query("sum by (instance) (quarterdeck_client_connections)", "{{instance}} open"),
                    Query(rate("quarterdeck_client_connections_refused_total"), "refused"),
                    Query(rate("quarterdeck_client_connections_evicted_total"), "evicted"),
                ),
                lines(
                    "Requests in flight",
                    "By gateway.",
                    Query("sum by (instance) (quarterdeck_requests_in_flight)", "{{instance}}"),
                ),
                lines(
                    "Access lines lost",
                    "Lines of the access log that could not be written.",
                    Query(rate("quarterdeck_access_lines_lost_total"), "lost"),
                ),
                lines(
                    "Background jobs",
                    "Failures of jobs, which are started again, and reloads of the configuration.",
                    Query(rare("quarterdeck_job_failures_total", by="job"), "{{job}} failed"),
                    Query(rate("quarterdeck_config_reloads_total", by="outcome"), "configuration {{outcome}}"),
                ),
            ),
        ),
    ),
)

MODELS_BOARD = Dashboard(
    uid="quarterdeck-models",
    title="Quarterdeck / Models and engines",
    description="Each model as its callers see it, and vLLM's own view of it.",
    variables=(MODELS,),
    rows=(
        Row(
            "As callers see it",
            (
                latency(
                    "Duration",
                    "gen_ai_server_request_duration_seconds",
                    "By model.",
                    matchers='gen_ai_request_model=~"$model"',
                    by="gen_ai_request_model",
                ),
                latency(
                    "Time to first token",
                    "gen_ai_server_time_to_first_token_seconds",
                    "By model.",
                    matchers='gen_ai_request_model=~"$model"',
                    by="gen_ai_request_model",
                ),
                latency(
                    "Time per output token",
                    "gen_ai_server_time_per_output_token_seconds",
                    "By model; each stream counts once.",
                    matchers='gen_ai_request_model=~"$model"',
                    by="gen_ai_request_model",
                ),
                lines(
                    "Tokens per request",
                    "Mean and 95th percentile of prompts and answers.",
                    Query(
                        mean("gen_ai_client_token_usage", 'gen_ai_request_model=~"$model"', by="gen_ai_token_type"),
                        "mean {{gen_ai_token_type}}",
                    ),
                    Query(
                        quantile(
                            0.95, "gen_ai_client_token_usage", 'gen_ai_request_model=~"$model"', by="gen_ai_token_type"
                        ),
                        "p95 {{gen_ai_token_type}}",
                    ),
                ),
            ),
        ),
        Row(
            "vLLM",
            (
                lines(
                    "Sequences",
                    "Running and waiting in the engines.",
                    Query(f"sum by (model_name) (vllm:num_requests_running{{{VLLM}}})", "{{model_name}} running"),
                    Query(f"sum by (model_name) (vllm:num_requests_waiting{{{VLLM}}})", "{{model_name}} waiting"),
                ),
                lines(
                    "KV cache",
                    "Share in use. Near 1, sequences wait or are preempted.",
                    Query(
                        f"max by (model_name, instance) (vllm:kv_cache_usage_perc{{{VLLM}}})",
                        "{{model_name}} {{instance}}",
                    ),
                    unit="percentunit",
                ),
                lines(
                    "Prefix cache",
                    "Share of prompt tokens found in it.",
                    Query(
                        f"{rate('vllm:prefix_cache_hits_total', VLLM, by='model_name')}"
                        f" / {rate('vllm:prefix_cache_queries_total', VLLM, by='model_name')}",
                        "{{model_name}}",
                    ),
                    unit="percentunit",
                ),
                lines(
                    "Tokens per second",
                    "Prompt tokens computed and tokens generated.",
                    Query(rate("vllm:prompt_tokens_total", VLLM, by="model_name"), "{{model_name}} prompt"),
                    Query(rate("vllm:generation_tokens_total", VLLM, by="model_name"), "{{model_name}} generated"),
                ),
                lines(
                    "Preemptions",
                    "Sequences that lost their KV cache to others and are computed again.",
                    Query(rate("vllm:num_preemptions_total", VLLM, by="model_name"), "{{model_name}}"),
                ),
                lines(
                    "Finished by reason",
                    "stop, length, abort (the client disconnected), error.",
                    Query(rate("vllm:request_success_total", VLLM, by="finished_reason"), "{{finished_reason}}"),
                    unit="reqps",
                ),
                latency(
                    "Queue in the engine",
                    "vllm:request_queue_time_seconds",
                    "Time before the first step.",
                    matchers=VLLM,
                ),
                latency("Prefill", "vllm:request_prefill_time_seconds", "Time to read the prompt.", matchers=VLLM),
                latency(
                    "Decode",
                    "vllm:request_decode_time_seconds",
                    "Time from the first token to the last.",
                    matchers=VLLM,
                ),
                lines(
                    "What the gateway adds",
                    "Mean time to first token at the gateway less that in the engine; streams and whole answers are not"
                    " told apart by the engine.",
                    Query(
                        f"({mean('quarterdeck_time_to_first_token_seconds', MODEL)})"
                        f" - ({mean('vllm:time_to_first_token_seconds', VLLM)})",
                        "added",
                    ),
                    unit="s",
                ),
            ),
        ),
    ),
)

COST = Dashboard(
    uid="quarterdeck-cost",
    title="Quarterdeck / Cost and use",
    description="Who uses what, and what it costs. Exact amounts: `quarterdeck usage`.",
    variables=TEAMS,
    rows=(
        Row(
            "Cost",
            (
                lines(
                    "Cost per hour by team",
                    "At the rate of the interval shown.",
                    Query(
                        f"3600 * {rate('quarterdeck_team_cost_dollars_total', TEAM, by='org, team')}",
                        "{{org}}/{{team}}",
                    ),
                    unit="currencyUSD",
                ),
                lines(
                    "Cost per hour by model",
                    "At the rate of the interval shown.",
                    Query(f"3600 * {rate('quarterdeck_cost_dollars_total', by='model')}", "{{model}}"),
                    unit="currencyUSD",
                ),
                lines(
                    "Saved per hour by the response cache",
                    "What the cached answers had cost.",
                    Query(f"3600 * {rate('quarterdeck_cache_saved_dollars_total', by='model')}", "{{model}}"),
                    unit="currencyUSD",
                ),
                Panel(
                    "Last 24 hours by team",
                    "Dollars.",
                    (Query(f"sum by (org, team) (increase(quarterdeck_team_cost_dollars_total{{{TEAM}}}[24h]))"),),
                    unit="currencyUSD",
                    kind="table",
                ),
            ),
        ),
        Row(
            "Use",
            (
                lines(
                    "Requests by team",
                    "Finished requests to models.",
                    Query(rate("quarterdeck_team_requests_total", TEAM, by="org, team"), "{{org}}/{{team}}"),
                    unit="reqps",
                ),
                lines(
                    "Unsuccessful requests by team",
                    "error, cancelled, lost.",
                    Query(
                        rare("quarterdeck_team_requests_total", f'{TEAM},status!="ok"', by="org, team, status"),
                        "{{org}}/{{team}} {{status}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Tokens by team",
                    "Prompt and generated tokens per second.",
                    Query(
                        rate("quarterdeck_team_tokens_total", TEAM, by="org, team, kind"), "{{org}}/{{team}} {{kind}}"
                    ),
                ),
                lines(
                    "Requests by prompt version",
                    "Finished requests that used a stored prompt.",
                    Query(
                        rare("quarterdeck_prompt_requests_total", by="org, prompt, version, status"),
                        "{{org}}/{{prompt}} {{version}} {{status}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Cost per hour by prompt version",
                    "At the rate of the interval shown.",
                    Query(
                        f"3600 * ({rate('quarterdeck_prompt_cost_dollars_total', by='org, prompt, version')})"
                        " or vector(0)",
                        "{{org}}/{{prompt}} {{version}}",
                    ),
                    unit="currencyUSD",
                ),
                lines(
                    "Canaries of prompts rolled back",
                    "By the worker, because a bound of the guard was broken.",
                    Query(rare("quarterdeck_prompt_rollbacks_total"), "rollbacks"),
                ),
                lines(
                    "Prompts at Langfuse",
                    "Synchronised prompts, and differences that wait for a decision (`quarterdeck prompts sync`).",
                    Query("max(quarterdeck_prompt_sync_linked) or vector(0)", "synchronised"),
                    Query("max(quarterdeck_prompt_sync_conflicts) or vector(0)", "conflicts"),
                    Query("1 - min(quarterdeck_prompt_sync_up)", "failing"),
                ),
                lines(
                    "Prompt versions and labels carried over",
                    "To and from Langfuse, by step; refused ones stay where they are.",
                    Query(rare("quarterdeck_prompt_syncs_total", by="step"), "{{step}}"),
                ),
                lines(
                    "Refused for money",
                    "Requests that a budget refused, by whose it is.",
                    Query(rare("quarterdeck_admissions_refused_total", 'reason="money"', by="scope"), "{{scope}}"),
                    unit="reqps",
                ),
            ),
        ),
    ),
)

STORES = Dashboard(
    uid="quarterdeck-records",
    title="Quarterdeck / Records, worker and stores",
    description="The way of a record into the ledger and the traces, and the stores it passes.",
    rows=(
        Row(
            "Ledger",
            (
                lines(
                    "Rows",
                    "Inserted per second, and repeated deliveries.",
                    Query(rate("quarterdeck_ledger_rows_total"), "rows"),
                    Query(rate("quarterdeck_ledger_duplicates_total"), "duplicates"),
                ),
                lines(
                    "Waiting records",
                    "In Redis and not in the ledger yet, and in the spools of gateways.",
                    Query("sum by (org) (quarterdeck_ledger_waiting_records)", "{{org}}"),
                    Query("sum by (instance) (quarterdeck_spool_waiting_records)", "spool of {{instance}}"),
                ),
                lines(
                    "Lag",
                    "Age of the oldest record that is not in the ledger.",
                    Query("max by (org) (quarterdeck_ledger_lag_seconds)", "{{org}}"),
                    unit="s",
                ),
                latency(
                    "Batch", "quarterdeck_ledger_batch_seconds", "From reading a batch to its commit.", matchers=""
                ),
                lines(
                    "Dead and lost",
                    "Records that need an operator, records moved there, and requests whose gateway died.",
                    Query("sum by (org) (quarterdeck_ledger_dead_waiting_records)", "dead, waiting {{org}}"),
                    Query(rare("quarterdeck_ledger_dead_records_total", by="reason"), "dead {{reason}}"),
                    Query(rate("quarterdeck_lost_requests_total"), "lost"),
                ),
                lines(
                    "Captured contents",
                    "Inputs and outputs: stored, missing, deleted, failed.",
                    Query(rare("quarterdeck_contents_total", by="outcome"), "{{outcome}}"),
                ),
                lines(
                    "Webhooks",
                    "Attempts by outcome, and budgets that reached a threshold.",
                    Query(rare("quarterdeck_webhook_attempts_total", by="outcome"), "{{outcome}}"),
                    Query(rare("quarterdeck_budget_alerts_total"), "budget alerts"),
                ),
                lines(
                    "Jobs",
                    "Background responses and batches: waiting, running, age of the oldest that waits and of the oldest"
                    " that has not ended, attempts by outcome.",
                    Query("max by (kind) (quarterdeck_jobs_waiting)", "waiting {{kind}}"),
                    Query("sum by (kind) (quarterdeck_jobs_running)", "running {{kind}}"),
                    Query("max by (kind) (quarterdeck_jobs_oldest_seconds)", "oldest waiting, seconds {{kind}}"),
                    Query("max by (kind) (quarterdeck_jobs_open_seconds)", "oldest open, seconds {{kind}}"),
                    Query(rare("quarterdeck_job_attempts_total", by="kind, outcome"), "{{kind}} {{outcome}}"),
                ),
                lines(
                    "Batches",
                    "Requests by outcome, refusals for want of room, requests at once, batches that ended.",
                    Query(rare("quarterdeck_batch_requests_total", by="outcome"), "{{outcome}}"),
                    Query(rare("quarterdeck_batch_refusals_total"), "refusals"),
                    Query("sum(quarterdeck_batch_concurrency) or vector(0)", "at once"),
                    Query(rare("quarterdeck_batches_ended_total", by="status"), "batches {{status}}"),
                ),
                lines(
                    "Spool",
                    "Records written while Redis was unavailable, and writes for which the disk had no room.",
                    Query(rate("quarterdeck_spooled_records_total"), "written"),
                    Query(rate("quarterdeck_spool_write_failures_total"), "failed"),
                ),
            ),
        ),
        Row(
            "Traces",
            (
                lines(
                    "Traces",
                    "Exported to each sink, dropped by reason, and requests without one (sampling).",
                    Query(rare("quarterdeck_traces_exported_total", by="sink"), "to {{sink}}"),
                    Query(rare("quarterdeck_traces_dropped_total", by="sink, reason"), "dropped {{sink}} {{reason}}"),
                    Query(rare("quarterdeck_traces_unsampled_total"), "not sampled"),
                ),
                lines(
                    "Scores",
                    "Feedback and scores that the trace backend took or refused.",
                    Query(rare("quarterdeck_scores_exported_total", by="outcome"), "{{outcome}}"),
                ),
                lines(
                    "Waiting",
                    "Traces that are not exported yet.",
                    Query("sum by (sink) (quarterdeck_traces_waiting_records)", "{{sink}}"),
                ),
                lines(
                    "Sinks",
                    "1: the last export was accepted.",
                    Query("min by (sink) (quarterdeck_traces_up)", "{{sink}}"),
                ),
            ),
        ),
        Row(
            "Redis and database",
            (
                lines(
                    "Reachable",
                    "1: yes. The channel carries changes of keys; without it they are polled.",
                    Query("min by (job) (quarterdeck_redis_up)", "Redis from {{job}}"),
                    Query("min by (job) (quarterdeck_database_up)", "database from {{job}}"),
                    Query("min by (job) (quarterdeck_subscription_up)", "channel from {{job}}"),
                ),
                latency(
                    "Round trips",
                    "quarterdeck_dependency_round_trip_seconds",
                    "Of a probe, sent once a second.",
                    matchers="",
                    by="dependency",
                ),
                lines(
                    "Failed probes",
                    "Per second.",
                    Query(rare("quarterdeck_dependency_probe_failures_total", by="dependency"), "{{dependency}}"),
                ),
                lines(
                    "Redis' memory",
                    "In use, and its maxmemory (0: none).",
                    Query("max(quarterdeck_redis_memory_bytes)", "used"),
                    Query("max(quarterdeck_redis_memory_limit_bytes)", "limit"),
                    unit="bytes",
                ),
            ),
        ),
    ),
)

OPERATOR = Dashboard(
    uid="quarterdeck-operator",
    title="Quarterdeck / Operator",
    description="What the operator does in a cluster, and what it costs the API server.",
    variables=(),
    rows=(
        Row(
            "Objects",
            (
                lines(
                    "Models by state",
                    "Serving, Zero, Suspended, Starting or Failed.",
                    Query("max by (state) (quarterdeck_operator_models)", "{{state}}"),
                ),
                lines(
                    "Custom resources",
                    "In the namespace, by kind.",
                    Query("max by (kind) (quarterdeck_operator_objects)", "{{kind}}"),
                ),
                lines(
                    "Scalings",
                    "Changes of a number of replicas per second.",
                    Query(rare("quarterdeck_operator_scalings_total", by="direction"), "{{direction}}"),
                ),
                lines(
                    "Adapters by state",
                    "waiting: an adapter is loaded, or its Model has no replica.",
                    Query("max by (state) (quarterdeck_operator_adapters)", "{{state}}"),
                ),
                lines(
                    "Canaries by phase",
                    "Aborted stays until the Model's spec changes.",
                    Query("max by (phase) (quarterdeck_operator_canaries)", "{{phase}}"),
                ),
            ),
        ),
        Row(
            "Reconciles",
            (
                lines(
                    "Reconciles by outcome",
                    "A failed one is repeated with growing pauses.",
                    Query(rate("quarterdeck_operator_reconciles_total", by="kind, outcome"), "{{kind}} {{outcome}}"),
                    unit="reqps",
                ),
                latency(
                    "Duration of a reconcile",
                    "quarterdeck_operator_reconcile_seconds",
                    "By kind of object.",
                    matchers="",
                    by="kind",
                ),
                latency(
                    "Wait for a reconcile",
                    "quarterdeck_operator_queue_wait_seconds",
                    "From a change to the start of its reconcile.",
                    matchers="",
                ),
                lines(
                    "Queue",
                    "Objects that wait for a reconcile or are being reconciled.",
                    Query("max(quarterdeck_operator_queue_objects)", "objects"),
                ),
                lines(
                    "Leaders",
                    "1: one operator leads.",
                    Query("sum(quarterdeck_operator_leader)", "leaders"),
                ),
                lines(
                    "Gateways asked",
                    "Gateways whose demand decides about replicas.",
                    Query("max(quarterdeck_operator_gateways)", "gateways"),
                ),
            ),
        ),
        Row(
            "API server",
            (
                lines(
                    "Calls by verb",
                    "At rest only the lease is read and written.",
                    Query(rate("quarterdeck_operator_api_calls_total", by="verb"), "{{verb}}"),
                    unit="reqps",
                ),
                lines(
                    "Calls that failed",
                    "missing is a 404, conflict a 409, throttled a 429.",
                    Query(rare("quarterdeck_operator_api_calls_total", 'outcome!="ok"', by="outcome"), "{{outcome}}"),
                    unit="reqps",
                ),
                latency(
                    "Duration of a call",
                    "quarterdeck_operator_api_call_seconds",
                    "By verb.",
                    matchers="",
                    by="verb",
                ),
                lines(
                    "Changes seen",
                    "Events of watches, and changes that watches missed and a list found.",
                    Query(rate("quarterdeck_operator_watch_events_total", by="kind"), "{{kind}}"),
                    Query(rare("quarterdeck_operator_watch_corrections_total"), "missed"),
                ),
                lines(
                    "Configuration writes",
                    "Of the configuration that gateways follow.",
                    Query(rare("quarterdeck_operator_config_writes_total"), "writes"),
                ),
            ),
        ),
    ),
)

DASHBOARDS = {
    "operator": OPERATOR,
    "overview": OVERVIEW,
    "gateway": GATEWAY,
    "models": MODELS_BOARD,
    "ray": RAY,
    "cost": COST,
    "records": STORES,
}
