"""Ray's settings as environment variables, which it reads at import in each of its processes.

They are set in the door's environment before Ray is imported, and every process that Ray starts inherits them. A value
that the user set is kept.
"""

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

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


LOOPBACK_VARIABLES: Mapping[str, str] = {
    # Without it Ray replaces 127.0.0.1 by the machine's address: it would listen on the network, and fail when a laptop
    # changes its address. The name refers to an older purpose.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Defaults for a Ray that listens on loopback."""


def set_variables(environ: MutableMapping[str, str], source_root: Path, *, is_ours: bool, is_loopback: bool) -> None:
    """Set the environment that Ray and its workers inherit. Must be called before Ray is imported.

    `is_ours`: Ray is started by this process, not joined.
    """
    for name, value in {**RAY_VARIABLES, **(LOOPBACK_VARIABLES if is_loopback else {})}.items():
        environ.setdefault(name, value)
    if is_ours:
        # A client of Ray can run code as this user. The token is for this run and in no file: Ray's processes inherit
        # it. The mode is set explicitly because only the process that starts Ray enables it by default.
        environ.setdefault("RAY_AUTH_MODE", "token")
        environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # An engine starts five processes that import 4,000 modules each; cached byte code halves that time.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(source_root), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
