"""Whether a model fits into this machine's memory. Pure, but for the reading of /proc and of cgroups.

On a CPU a model needs its weights in the type it computes with, its KV cache, and the processes around it. On a GPU
vLLM takes a share of its memory and refuses by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GB = 10**9
_OVERHEAD_BYTES = 1_700_000_000
"""Of a replica beside weights and KV cache: Ray's worker and vLLM's engine core, with torch in both. Measured on a
CPU: 1.7 GB of a chat model, 1.4 GB of an embedding model."""
_UNLIMITED = 1 << 50
"""A limit of a cgroup above it is none."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model takes once it serves."""

    weights: int
    kv_cache: int
    overhead: int = _OVERHEAD_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.overhead


@dataclass(frozen=True, slots=True)
class Committed:
    """A model that runs or starts: what it will take, and what it has taken of that."""

    needed: int
    resident: int

    @property
    def outstanding(self) -> int:
        """It will still take so much: a KV cache is resident only once it was used."""
        return max(0, self.needed - self.resident)


def weights_bytes(parameters: int, stored: int, *, quantization: str, dtype: str) -> int:
    """The size of weights in memory. `stored`: their size on disk, used where `parameters` is 0 (not known)."""
    per_parameter = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}.get(dtype, 2.0)
    if quantization == "bitsandbytes":
        per_parameter = 0.75  # 4 bits and their scales; embeddings stay as they are
    elif quantization in ("int8", "fp8"):
        per_parameter = 1.25
    elif quantization in ("awq", "gptq"):
        return stored  # packed as they are stored
    return int(parameters * per_parameter) if parameters else stored


def least_weights_bytes(parameters: int, stored: int, *, quantization: str, dtype: str) -> int:
    """The least that weights take, for a machine whose engine decides by itself whether they fit. `dtype` auto: as they
    are stored."""
    if quantization in ("awq", "gptq"):
        return stored
    if quantization == "none" and dtype == "auto":
        return stored
    per_parameter = {"bitsandbytes": 0.5, "int8": 1.0, "fp8": 1.0}.get(quantization, 4.0 if dtype == "float32" else 2.0)
    return min(int(parameters * per_parameter), stored) if parameters else 0


def room(free: int, others: Iterable[Committed]) -> int:
    """What is left of the free memory once the other models have taken what they need. May be negative."""
    return free - sum(each.outstanding for each in others)


def fits(need: Need, free: int, others: Iterable[Committed] = ()) -> bool:
    return need.total <= room(free, others)


def refusal(need: Need, left: int) -> str:
    parts = ((need.weights, "weights"), (need.kv_cache, "KV cache"), (need.overhead, "its processes"))
    named = ", ".join(f"{gb(size)} {words}" for size, words in parts if size)
    of_what = f" ({named})" if all(size for size, _ in parts) else ""
    return f"does not fit: needs {gb(need.total)} of memory{of_what}, {gb(max(0, left))} free"


def gb(size: int) -> str:
    return f"{size / GB:.1f} GB"


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can be taken without swapping: the machine's, or what the container's limit leaves. None: not known.

    Caches of files count as free in both.
    """
    found = [size for size in (_available(proc / "meminfo"), _left_in_cgroup(cgroup)) if size is not None]
    return min(found) if found else None


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _left_in_cgroup(cgroup: Path) -> int | None:
    """cgroup v2, then v1. None: there is no limit."""
    for limit_file, used_file, stat_file in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            limit = int((cgroup / limit_file).read_text(encoding="ascii"))
            used = int((cgroup / used_file).read_text(encoding="ascii"))
            stat = (cgroup / stat_file).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # `max`
            continue
        if limit > _UNLIMITED:
            return None
        cached = next((int(line.split()[1]) for line in stat if line.split()[0] == "inactive_file"), 0)
        return max(0, limit - used + cached)
    return None


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Resident memory of processes, without files they map: libraries are shared, and weights are copied."""
    total = 0
    for pid in pids:
        try:
            lines = (proc / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue  # it ended
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total
