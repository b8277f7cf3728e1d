"""Ray's settings as environment variables, which it reads at import in each of its processes.

They are set in the door's environment before Ray is imported, and every process that Ray starts inherits them. A value
that the user set is kept.
"""

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from quarterdeck.settings.ray import RAY_VARIABLES

LOOPBACK_VARIABLES: Mapping[str, str] = {
    # Without it Ray replaces 127.0.0.1 by the machine's address: it would listen on the network, and fail when a laptop
    # changes its address. The name refers to an older purpose.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Defaults for a Ray that listens on loopback."""

PATIENT_VARIABLES: Mapping[str, str] = {
    # Ray's waits for its own processes are for idle machines: 30 s and a minute. A busy one takes several times as long
    # to start a Python process, and Ray then ends itself.
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_register_timeout_seconds": "300",
}
"""Defaults for a Ray that this process starts. `engine/ray_start.py` has the wait that no variable sets."""


def set_variables(environ: MutableMapping[str, str], source_root: Path, *, is_ours: bool, is_loopback: bool) -> None:
    """Set the environment that Ray and its workers inherit. Must be called before Ray is imported.

    `is_ours`: Ray is started by this process, not joined.
    """
    variables = {
        **RAY_VARIABLES,
        **(PATIENT_VARIABLES if is_ours else {}),
        **(LOOPBACK_VARIABLES if is_loopback else {}),
    }
    for name, value in variables.items():
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
