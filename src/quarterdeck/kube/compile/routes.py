"""Targets of routes: what their names stand for, and how a canary's share is taken from a target."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quarterdeck.settings.routes import Fallback, MirrorConfig, RouteConfig, Target

MAX_TARGETS = 100


@dataclass(frozen=True, slots=True)
class Split:
    """A model of which two revisions run, as names of `models:`."""

    stable: str
    candidate: str
    weight: float
    """Percentage of requests that the candidate gets."""

    def targets(self, weight: float) -> tuple[Target, ...]:
        """Both revisions, with `weight` together."""
        return (
            Target(model=self.stable, weight=weight * (100 - self.weight) / 100),
            Target(model=self.candidate, weight=weight * self.weight / 100),
        )


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of the configuration stand for."""

    models: frozenset[str]
    """Models and adapters, which a route can lead to."""
    splits: Mapping[str, Split] = field(default_factory=dict)
    """Models with a canary."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Aliases, with the models they belong to."""
    routes: frozenset[str] = frozenset()
    """Names of routes."""

    def problem(self, name: str) -> str | None:
        """Why a route can't lead to a name. None: it can."""
        if name in self.models or name in self.splits:
            return None
        if name in self.aliases:
            return f"{name!r} is an alias: name the model, {self.aliases[name]!r}"
        if name in self.routes:
            return f"{name!r} is a route, and a route leads to models and adapters"
        return f"no model or adapter {name!r}"


def resolve(route: RouteConfig, names: Names) -> tuple[RouteConfig | None, list[str]]:
    """The route with the targets that exist, and what is wrong with the others. None: no target is left."""
    problems: dict[str, None] = {}

    def exists(name: str) -> bool:
        if (problem := names.problem(name)) is not None:
            problems[problem] = None
        return problem is None

    targets = [each for each in route.targets if exists(each.model)]
    fallbacks = [each for each in route.fallbacks if exists(each.model)]
    mirror = route.mirror if route.mirror is not None and exists(route.mirror.model) else None
    if not any(each.weight for each in targets):
        return None, list(problems)
    resolved = route.model_copy(
        update={
            "targets": _split(targets, names.splits),
            "fallbacks": tuple(_stable(each, names.splits) for each in fallbacks),
            "mirror": _stable_mirror(mirror, names.splits),
        }
    )
    return resolved, list(problems)


def _split(targets: list[Target], splits: Mapping[str, Split]) -> tuple[Target, ...]:
    """Targets with a canary's two revisions instead of its model, while there is room; else its stable revision."""
    found: list[Target] = []
    room = MAX_TARGETS - len(targets)
    for each in targets:
        split = splits.get(each.model)
        if split is None:
            found.append(each)
        elif room:
            found += split.targets(each.weight)
            room -= 1
        else:
            found.append(Target(model=split.stable, weight=each.weight))
    return tuple(found)


def _stable(fallback: Fallback, splits: Mapping[str, Split]) -> Fallback:
    split = splits.get(fallback.model)
    return fallback if split is None else fallback.model_copy(update={"model": split.stable})


def _stable_mirror(mirror: MirrorConfig | None, splits: Mapping[str, Split]) -> MirrorConfig | None:
    split = splits.get(mirror.model) if mirror is not None else None
    return mirror if mirror is None or split is None else mirror.model_copy(update={"model": split.stable})


def routes_of_split(name: str, aliases: Iterable[str], split: Split) -> list[RouteConfig]:
    """While a canary runs, the model's name and aliases are routes to both revisions."""
    return [RouteConfig(name=each, targets=split.targets(100)) for each in (name, *aliases)]
