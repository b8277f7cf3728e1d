"""Whether a model fits on the GPUs. Pure.

Ray gives each replica whole GPUs. On each of them vLLM takes `gpu_memory_utilization` of the memory, refuses to start
where less is free, and needs room there for its share of the weights and for one request of full length.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from quarterdeck.model_lifecycle.memory import gb

OVERHEAD_BYTES = 1_000_000_000
"""Of each GPU beside weights and KV cache: CUDA's context, activations and graphs. An estimate, on the low side: what
is refused here could not start."""
_MARGIN = 0.95
"""Of the free memory, what a share that is proposed may take."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine. Memory in bytes."""

    name: str
    total: int
    free: int
    held: Mapping[int, int] = field(default_factory=dict)
    """By processes, by their pids. Empty where the driver does not say, or has others: in containers, on MIG."""


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """`count`: GPUs of all replicas. `bytes_each`: what a replica needs at least on each of them. `share`: of a GPU's
    memory that vLLM takes (`gpu_memory_utilization`)."""

    count: int
    bytes_each: int
    share: float


@dataclass(frozen=True, slots=True)
class Gpus:
    """`count`: GPUs that replicas can get. `devices`: those of this machine; empty where their memory is not known."""

    count: int
    devices: tuple[Gpu, ...] = ()


def refusal(need: GpuNeed, gpus: Gpus, taken: int) -> str:
    """Why a model does not fit. Empty: it does. `taken`: GPUs of the other models."""
    free = max(0, gpus.count - taken)
    if need.count > free:
        return f"does not fit: needs {_gpus(need.count)}, {free} of {gpus.count} free"
    if not gpus.devices:
        return ""
    largest = max(gpus.devices, key=lambda each: each.total)
    if need.bytes_each > largest.total * need.share:
        left = f"gpu_memory_utilization {need.share:g} gives it {gb(int(largest.total * need.share))} of {largest.name}"
        return f"does not fit: needs {gb(need.bytes_each)} on each GPU, and {left}"
    return _no_room(need, gpus.devices)


def fits_in_place_of(need: GpuNeed, gpus: Gpus, taken: int) -> bool:
    """Whether it fits once its previous version has ended. `taken`: GPUs of the other models, without that version."""
    largest = max((each.total for each in gpus.devices), default=0)
    has_memory = not largest or need.bytes_each <= largest * need.share
    return need.count <= gpus.count - taken and has_memory


def held_by(pids: Collection[int], devices: Sequence[Gpu]) -> int | None:
    """Bytes that these processes hold on the GPUs. None: none, or it is not known."""
    return sum(size for each in devices for pid, size in each.held.items() if pid in pids) or None


def _no_room(need: GpuNeed, devices: Sequence[Gpu]) -> str:
    """vLLM looks at the memory that is free when it starts. Empty: enough GPUs have it."""
    if sum(each.free >= each.total * need.share for each in devices) >= need.count:
        return ""
    by_room = sorted(devices, key=lambda each: each.free / each.total, reverse=True)
    best = by_room[min(need.count, len(by_room)) - 1]
    wanted = f"needs {gb(int(best.total * need.share))} of {best.name} (gpu_memory_utilization {need.share:g})"
    possible = int(best.free * _MARGIN / best.total * 100) / 100
    hint = f"; it would fit with {possible:g}" if need.bytes_each <= best.total * possible else ""
    return f"does not fit: {wanted}, {gb(best.free)} free{hint}"


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
