"""Ray and Ray Serve below the engines: series that Ray's agent exports on each node (Ray 2.60)."""

from observability.grafana import Dashboard, Query, Row, Variable
from observability.panels import lines, single
from observability.queries import mean, quantile, rare

APPLICATION = 'application=~"$application"'
RUNNING = 6
"""Of `ray_serve_application_status`; Serve's numbers of states, the same for a healthy deployment."""

RAY = Dashboard(
    uid="quarterdeck-ray",
    title="Quarterdeck / Ray",
    description="Ray Serve and its nodes, where it runs the engines. An application is a model.",
    variables=(Variable("application", "Application", "label_values(ray_serve_application_status, application)"),),
    rows=(
        Row(
            "Now",
            (
                single(
                    "Applications not running",
                    "Applications of Serve in any other state than RUNNING: deploying, unhealthy, failed.",
                    f"count(max by (application) (ray_serve_application_status) != {RUNNING}) or vector(0)",
                ),
                single(
                    "Healthy replicas",
                    "Replicas that pass Serve's health check.",
                    f"sum(ray_serve_deployment_replica_healthy{{{APPLICATION}}})",
                ),
                single("Nodes", "Nodes that Ray's head knows as alive.", "sum(ray_cluster_active_nodes)"),
            ),
        ),
        Row(
            "Replicas",
            (
                lines(
                    "Replicas of Serve",
                    "Healthy ones, and as many as Serve aims at.",
                    Query(
                        f"sum by (application) (ray_serve_deployment_replica_healthy{{{APPLICATION}}})",
                        "{{application}} healthy",
                    ),
                    Query(
                        f"max by (application) (ray_serve_autoscaling_target_replicas{{{APPLICATION}}})",
                        "{{application}} target",
                    ),
                ),
                lines(
                    "State of applications",
                    "1 deployment failed, 2 unhealthy, 3 not started, 4 deleting, 5 deploying, 6 running.",
                    Query(f"max by (application) (ray_serve_application_status{{{APPLICATION}}})", "{{application}}"),
                ),
                lines(
                    "Starts of replicas",
                    "Replicas started in the last hour. More than deployments and scalings explain: replicas die.",
                    Query(
                        "sum by (application) (increase("
                        f"ray_serve_deployment_replica_starts_total{{{APPLICATION}}}[1h]))",
                        "{{application}}",
                    ),
                ),
                lines(
                    "Time to start a replica",
                    "Mean of those that started since Ray did: placement, weights and warm-up.",
                    Query(
                        f"sum by (application) (ray_serve_replica_startup_latency_ms_sum{{{APPLICATION}}})"
                        f" / sum by (application) (ray_serve_replica_startup_latency_ms_count{{{APPLICATION}}})",
                        "{{application}}",
                    ),
                    unit="ms",
                ),
                lines(
                    "Health checks",
                    "95th percentile of Serve's checks of replicas. A replica that answers late is replaced.",
                    Query(
                        quantile(0.95, "ray_serve_health_check_latency_ms", APPLICATION, by="application"),
                        "{{application}}",
                    ),
                    unit="ms",
                ),
            ),
        ),
        Row(
            "Requests at replicas",
            (
                lines(
                    "Requests of replicas by status",
                    "At the replicas' own ports: with the gateway's attempts, probes and scrapes.",
                    Query(
                        rare("ray_serve_num_http_requests_total", APPLICATION, by="application, status_code"),
                        "{{application}} {{status_code}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Errors of replicas",
                    "Responses with a status of 400 or more.",
                    Query(
                        rare("ray_serve_num_http_error_requests_total", APPLICATION, by="application, error_code"),
                        "{{application}} {{error_code}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Duration at replicas",
                    "From the request's head to the end of its answer, streams included.",
                    Query(quantile(0.5, "ray_serve_http_request_latency_ms", APPLICATION), "p50"),
                    Query(quantile(0.95, "ray_serve_http_request_latency_ms", APPLICATION), "p95"),
                    unit="ms",
                ),
                lines(
                    "Requests in replicas",
                    "Being processed, by replica.",
                    Query(
                        f"sum by (application, replica) (ray_serve_replica_processing_queries{{{APPLICATION}}})",
                        "{{application}} {{replica}}",
                    ),
                ),
                lines(
                    "Event loops of Serve",
                    "How late they run a task, mean by component.",
                    Query(
                        mean("ray_serve_event_loop_scheduling_latency_ms", "", by="component"),
                        "{{component}}",
                    ),
                    unit="ms",
                ),
                lines(
                    "Serve's controller",
                    "Duration of its control loop. A slow one starts and replaces replicas late.",
                    Query("max(ray_serve_controller_control_loop_duration_s)", "loop"),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Nodes of Ray",
            (
                lines(
                    "Memory of Ray's processes",
                    "Resident set, by component and node.",
                    Query("sum by (Component, ip) (ray_component_rss_bytes)", "{{Component}} {{ip}}"),
                    unit="bytes",
                ),
                lines(
                    "CPU of Ray's processes",
                    "Cores in use, by component and node.",
                    Query("sum by (Component, ip) (ray_component_cpu_percentage) / 100", "{{Component}} {{ip}}"),
                ),
                lines(
                    "Memory of nodes",
                    "Share in use.",
                    Query("max by (ip) (ray_node_mem_used / ray_node_mem_total)", "{{ip}}"),
                    unit="percentunit",
                ),
                lines(
                    "Object store",
                    "Share in use. Little passes through it here.",
                    Query(
                        "sum by (instance) (ray_object_store_used_memory) / sum by (instance)"
                        " (ray_object_store_used_memory + ray_object_store_available_memory)",
                        "{{instance}}",
                    ),
                    unit="percentunit",
                ),
                lines(
                    "Resources of Ray",
                    "CPUs and GPUs that Ray has given out and has left.",
                    Query('sum by (Name, State) (ray_resources{Name=~"CPU|GPU"})', "{{Name}} {{State}}"),
                ),
            ),
        ),
    ),
)
