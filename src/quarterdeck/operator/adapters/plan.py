"""What to do next on each replica: load, probe, unload. Pure.

One replica's adapter does not wait for another's, and a replica that fails does not hold up the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.adapters.wanted import Wanted, is_ours, public_name

RETIRE_SECONDS = 10.0
"""How long an adapter that is not wanted any more stays loaded: until no gateway routes to it."""
FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0

Act = Literal["load", "probe", "unload"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a replica does not serve an adapter, and when to try again."""

    reason: Reason
    message: str
    due: float
    delay: float = FIRST_RETRY_SECONDS


@dataclass(slots=True)
class Replica:
    """A ready replica and what is known of its adapters. A restarted container is another replica: its engine has
    forgotten them."""

    pod: str
    key: str
    """Identifies the container's run."""
    url: str
    loaded: set[str] = field(default_factory=set)
    """Names in the engine, as it lists them."""
    probed: set[str] = field(default_factory=set)
    """Of these, those that answered a probe."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """By engine name."""
    retired: dict[str, float] = field(default_factory=dict)
    """Names that are not wanted any more, and when to unload them."""

    def serves(self, engine_name: str) -> bool:
        return engine_name in self.loaded and engine_name in self.probed


@dataclass(frozen=True, slots=True)
class Action:
    """One call of a replica."""

    act: Act
    replica: str
    """Its key."""
    engine_name: str
    path: str = ""


def make_plan(wanted: Iterable[Wanted], replicas: Iterable[Replica], now: float) -> list[Action]:
    """The calls that are due. Unloading goes first: it makes room."""
    names = {each.engine_name: each for each in wanted}
    unload: list[Action] = []
    load: list[Action] = []
    for replica in replicas:
        for name in sorted(replica.loaded - names.keys()):
            if name in replica.retired and replica.retired[name] <= now and _is_due(replica, name, now):
                unload.append(Action("unload", replica.key, name))
        for name, each in names.items():
            if not _is_due(replica, name, now) or replica.serves(name):
                continue
            act: Act = "probe" if name in replica.loaded else "load"
            load.append(Action(act, replica.key, name, each.path))
    return [*unload, *load]


def retire(wanted: Iterable[Wanted], replicas: Iterable[Replica], now: float) -> None:
    """Mark what is loaded and not wanted any more; a name that is wanted again is unmarked. A version of an adapter is
    in use until all replicas serve the next one."""
    all_replicas, wanted = list(replicas), list(wanted)
    names = {each.engine_name for each in wanted}
    pending = {each.public for each in wanted if not all(each_.serves(each.engine_name) for each_ in all_replicas)}
    for replica in all_replicas:
        for name in replica.loaded - names:
            if is_ours(name) and public_name(name) not in pending:
                replica.retired.setdefault(name, now + RETIRE_SECONDS)
        for name in [name for name in replica.retired if name in names or name not in replica.loaded]:
            del replica.retired[name]


def next_due(wanted: Iterable[Wanted], replicas: Iterable[Replica], now: float) -> float | None:
    """Seconds until something is due; None if nothing is."""
    names = {each.engine_name for each in wanted}
    times: list[float] = []
    for replica in replicas:
        times += replica.retired.values()
        times += [failure.due for name, failure in replica.failures.items() if name in names or name in replica.loaded]
    return max(0.1, min(times) - now) if times else None


def failed(replica: Replica, engine_name: str, reason: Reason, message: str, now: float) -> None:
    """Note a failure. The pause before the next attempt doubles."""
    known = replica.failures.get(engine_name)
    delay = min(MAX_RETRY_SECONDS, known.delay * 2) if known is not None else FIRST_RETRY_SECONDS
    replica.failures[engine_name] = Failure(reason, message, now + delay, delay)


def pods_of(engine_name: str, replicas: Iterable[Replica]) -> tuple[str, ...]:
    """Pods that serve the adapter under this name, sorted."""
    return tuple(sorted(replica.pod for replica in replicas if replica.serves(engine_name)))


def version_in_use(wanted: Wanted, replicas: Sequence[Replica]) -> str:
    """The engine's name by which gateways ask for the adapter: the wanted one, or the previous version's while more
    replicas serve that."""
    names = {name for each in replicas for name in each.probed & each.loaded if public_name(name) == wanted.public}
    others = sorted(names - {wanted.engine_name})
    best = max(others, key=lambda name: len(pods_of(name, replicas)), default=wanted.engine_name)
    is_ahead = len(pods_of(best, replicas)) > len(pods_of(wanted.engine_name, replicas))
    return best if is_ahead else wanted.engine_name


def failures_of(wanted: Wanted, replicas: Iterable[Replica]) -> Mapping[str, Failure]:
    """Failures of the adapter by pod, of replicas that do not serve it."""
    return {
        replica.pod: replica.failures[wanted.engine_name]
        for replica in replicas
        if wanted.engine_name in replica.failures and not replica.serves(wanted.engine_name)
    }


def _is_due(replica: Replica, engine_name: str, now: float) -> bool:
    failure = replica.failures.get(engine_name)
    return failure is None or failure.due <= now
