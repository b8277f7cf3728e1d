"""Whether a version of a model has room beside the others, in memory and on GPUs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quarterdeck.model_lifecycle import gpus as on_gpus
from quarterdeck.model_lifecycle.gpus import GpuNeed, Gpus
from quarterdeck.model_lifecycle.instance import Instance
from quarterdeck.model_lifecycle.memory import Committed, fits, refusal, room
from quarterdeck.model_lifecycle.runtime import Observed


@dataclass(frozen=True, slots=True)
class NoRoom:
    """`message`: for its user. `fits_alone`: it has room once the model's previous version has ended."""

    message: str
    fits_alone: bool


def no_room(
    instance: Instance,
    others: Sequence[Instance],
    observed: Mapping[str, Observed],
    free: int | None,
    gpus: Gpus | None,
) -> NoRoom | None:
    """None: it fits, or that is not known. `free`: bytes of memory. `others`: those that are not being ended."""
    if free is not None and (found := _memory(instance, others, observed, free)) is not None:
        return found
    return _gpus(instance, others, gpus) if gpus is not None else None


def _memory(
    instance: Instance, others: Sequence[Instance], observed: Mapping[str, Observed], free: int
) -> NoRoom | None:
    need = instance.prepared.need if instance.prepared is not None else None
    if need is None:
        return None
    committed = [
        Committed(each.prepared.need.total, _resident(observed, each))
        for each in others
        if each.prepared is not None and each.prepared.need is not None
    ]
    if fits(need, free, committed):
        return None
    previous = _previous(instance, others)
    regained = sum(_resident(observed, each) for each in previous)
    return NoRoom(refusal(need, room(free, committed)), bool(previous) and need.total <= free + regained)


def _gpus(instance: Instance, others: Sequence[Instance], gpus: Gpus) -> NoRoom | None:
    need = _gpu_need(instance)
    if need is None:
        return None
    taken = _count(others)
    message = on_gpus.refusal(need, gpus, taken)
    if not message:
        return None
    regained = _count(_previous(instance, others))
    return NoRoom(message, regained > 0 and on_gpus.fits_in_place_of(need, gpus, taken - regained))


def _previous(instance: Instance, others: Sequence[Instance]) -> list[Instance]:
    return [each for each in others if each.model.name == instance.model.name and each.is_ready]


def _count(instances: Sequence[Instance]) -> int:
    return sum(need.count for each in instances if (need := _gpu_need(each)) is not None)


def _gpu_need(instance: Instance) -> GpuNeed | None:
    return instance.prepared.gpu_need if instance.prepared is not None else None


def _resident(observed: Mapping[str, Observed], instance: Instance) -> int:
    seen = observed.get(instance.app)
    return seen.memory_bytes or 0 if seen is not None else 0
