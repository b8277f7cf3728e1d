"""The bounds on memory, fitted to a container's limit: a gateway that is killed for its memory loses every stream."""

from pathlib import Path

from quarterdeck.settings.config import Config

CGROUP = Path("/sys/fs/cgroup")
SHARE = 4
"""Bodies in flight may take this part of the limit: a request with media takes three times its body's memory, and the
process itself some 150 MiB."""
MIB = 1024 * 1024
_UNLIMITED = 1 << 60
"""What version 1 of cgroups states where there is no limit is larger."""


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes that this process' container may use, by either version of cgroups. None: there is no limit, or it can't
    be read."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal() and 0 < int(text) < _UNLIMITED:
            return int(text)
    return None


def fitted(config: Config, limit: int | None) -> Config:
    """`config` with smaller defaults of `max_body_mb_in_flight` and its share per key, where `limit` leaves less room.
    What the file states is in force as it is. Pure."""
    gateway = config.gateway
    if limit is None or "max_body_mb_in_flight" in gateway.model_fields_set:
        return config
    most = max(1, min(gateway.max_body_mb_in_flight, limit // SHARE // MIB))
    if most == gateway.max_body_mb_in_flight:
        return config
    bounds = {"max_body_mb_in_flight": most}
    if "max_body_mb_in_flight_per_key" not in gateway.model_fields_set:
        bounds["max_body_mb_in_flight_per_key"] = max(1, min(gateway.max_body_mb_in_flight_per_key, most // 4))
    return config.model_copy(update={"gateway": gateway.model_copy(update=bounds)})
