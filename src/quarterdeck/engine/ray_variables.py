"""How Ray is told to behave: variables that it reads when it is imported, in every process of its own.

They are set in the door's own environment before anything imports Ray, and inherited by all that Ray starts. A
value that the user set is left alone.
"""

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

RAY_VARIABLES: Mapping[str, str] = {
    # Each replica listens on a port of its own and the gateway goes there: one hop.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    # The app runs in the loop that holds the socket: no hand-over between threads for each piece of a stream.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # A stopping replica keeps its port for so long, for those who have not yet seen that it drains (the gateway asks
    # each second). Ray's 30 are meant for cloud load balancers.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # The controller looks after its replicas twice a second, not ten times: that took 3 % of a core at rest.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Ray runs its workers at nice 15, and vLLM inherits that: any other process of the machine would starve it.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; the old one warns
    # Ray LLM would import vLLM once more in each worker process at its start.
    "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": "0",
}
"""Set before Ray starts, where the user has not: Ray reads them at import, in every process of its own."""


LOOPBACK_VARIABLES: Mapping[str, str] = {
    # Without it Ray turns 127.0.0.1 into the machine's address: it would listen to the network, and be lost when a
    # laptop changes its own. The name is of an older purpose.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""For a Ray that keeps to this machine."""


def set_variables(environ: MutableMapping[str, str], source_root: Path, *, is_ours: bool, is_loopback: bool) -> None:
    """Prepare the environment that Ray and its workers inherit. Must come before Ray is imported anywhere.

    `is_ours`: Ray is started by us, not joined.
    """
    for name, value in {**RAY_VARIABLES, **(LOOPBACK_VARIABLES if is_loopback else {})}.items():
        environ.setdefault(name, value)
    if is_ours:
        # Who can talk to Ray can run code as us. The token is for this run only and in no file: all of Ray's processes
        # inherit it. The mode is said aloud because only the process that starts Ray turns it on by itself.
        environ.setdefault("RAY_AUTH_MODE", "token")
        environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # An engine's start is five processes that import 4,000 modules each. Compiled once they cost half of that.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(source_root), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
