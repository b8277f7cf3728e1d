"""Environment variables of Ray for every process of a Ray that serves our engines, on a laptop and in a cluster.

Ray reads them at import. The engine door sets them before it starts Ray (`engine/ray_variables.py`), the operator in
the pods of a RayService.
"""

from collections.abc import Mapping

RAY_VARIABLES: Mapping[str, str] = {
    # Each replica listens on its own port, which the gateway calls: one hop.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    # The app runs in the event loop of its socket: no switch between threads for each chunk of a stream.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # How long a stopping replica keeps its port, until every gateway has seen that it drains (they poll each second).
    # Ray's default of 30 is meant for cloud load balancers.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # The controller checks its replicas twice a second; ten times, the default, took 3 % of a core at rest.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Ray's default runs workers at nice 15, which vLLM inherits: other processes of the machine would starve it.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; the current one warns
    # Otherwise Ray LLM imports vLLM once more in each worker process.
    "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": "0",
    # A host that gateway.media_domains allows could redirect vLLM to any other one.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
}
"""Defaults for every Ray."""
