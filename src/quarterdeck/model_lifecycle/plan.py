"""Which versions of models to start, to drain and to remove. No clock, no process.

A version of a model (an `Instance`) is its processes with one configuration. While a changed configuration starts, the
previous version serves; it is drained once the new one is ready. Where both do not fit into memory, the previous one
is drained first (`makes_room`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.model_lifecycle.desired import Desired

InstanceState = Literal["starting", "ready", "stopping"]


@dataclass(frozen=True, slots=True)
class Seen:
    """An instance as the plan sees it."""

    app: str
    model: str
    digest: str
    state: InstanceState
    """stopping: its processes are being ended, which can't be undone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. Every instance that is not stopping is in one of `keep`, `drain` and `remove`."""

    start: tuple[Desired, ...] = ()
    keep: tuple[str, ...] = ()
    """Apps that serve, or start. One that was being drained is used again."""
    drain: tuple[str, ...] = ()
    """Apps that get no further requests, and are removed once those in flight have ended."""
    remove: tuple[str, ...] = ()
    """Apps that never served: they are removed at once."""
    waiting: tuple[str, ...] = field(default=())
    """Models that wait until another one has started."""


def make_plan(
    desired: Mapping[str, Desired],
    instances: Sequence[Seen],
    *,
    held_back: Collection[str] = (),
    makes_room: Collection[str] = (),
    max_starting: int | None = None,
) -> Plan:
    """Compare what should run with what does.

    `held_back`: models whose next attempt is not due. `makes_room`: models whose previous version has to end before the
    new one starts. `max_starting`: how many may start at a time.
    """
    wanted = {name: model for name, model in desired.items() if not model.is_stopped}
    ready = {(each.model, each.digest) for each in instances if each.state == "ready"}
    keep, drain, remove = [], [], []
    for each in instances:
        model = wanted.get(each.model)
        if each.state == "stopping":
            continue
        if model is not None and model.digest == each.digest:
            keep.append(each.app)
        elif each.state == "starting":
            remove.append(each.app)
        elif model is None or (each.model, model.digest) in ready or each.model in makes_room:
            drain.append(each.app)
        else:
            keep.append(each.app)
    running = {(each.model, each.digest) for each in instances}
    starting = sum(1 for each in instances if each.state == "starting" and each.app in keep)
    room = len(wanted) if max_starting is None else max(0, max_starting - starting)
    missing = [
        model
        for name, model in wanted.items()
        if (name, model.digest) not in running
        and name not in held_back
        and not (name in makes_room and any(each.model == name for each in instances))
    ]
    serving = {each.model for each in instances if each.state == "ready"}
    missing.sort(key=lambda model: model.name in serving)  # a model that does not serve goes before a change
    return Plan(
        tuple(missing[:room]), tuple(keep), tuple(drain), tuple(remove), tuple(model.name for model in missing[room:])
    )
