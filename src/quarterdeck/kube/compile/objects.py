"""The objects of a namespace: read, and checked one by one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from quarterdeck.kube.compile import conversion
from quarterdeck.kube.compile.verdicts import Key, Verdict, refused
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError, Resource
from quarterdeck.kube.resources.route import ModelRoute
from quarterdeck.kube.resources.team import Team
from quarterdeck.settings.loading import MAX_PROBLEMS
from quarterdeck.settings.routes import RoutingConfig

COMPILED: tuple[type[Resource], ...] = (Model, ModelAdapter, ModelRoute, Team)
"""Kinds that become part of the configuration."""


@dataclass(slots=True)
class Objects:
    """Objects by name."""

    models: dict[str, Model] = field(default_factory=dict)
    adapters: dict[str, ModelAdapter] = field(default_factory=dict)
    routes: dict[str, ModelRoute] = field(default_factory=dict)
    teams: dict[str, Team] = field(default_factory=dict)

    def by_kind(self) -> list[tuple[str, dict[str, Any]]]:
        """Each kind with its objects."""
        return [
            (Model.kind, self.models),
            (ModelAdapter.kind, self.adapters),
            (ModelRoute.kind, self.routes),
            (Team.kind, self.teams),
        ]


def read(bodies: Iterable[Mapping[str, Any]]) -> tuple[Objects, dict[Key, Verdict]]:
    """The objects that can be read, and a verdict on the others."""
    parsed, verdicts = Objects(), dict[Key, Verdict]()
    kinds = {each.kind: each for each in COMPILED}
    for body in bodies:
        kind = kinds.get(str(body.get("kind")))
        metadata = body.get("metadata") or {}
        if kind is None or body.get("apiVersion") != API_VERSION or metadata.get("deletionTimestamp"):
            continue
        try:
            each = kind.parse(body)
        except InvalidObjectError as error:
            generation = metadata.get("generation")
            verdicts[kind.kind, str(metadata.get("name"))] = refused(
                generation if isinstance(generation, int) else 0, Reason.INVALID_SPEC, str(error)
            )
            continue
        match each:
            case Model():
                parsed.models[each.name] = each
            case ModelAdapter():
                parsed.adapters[each.name] = each
            case ModelRoute():
                parsed.routes[each.name] = each
            case Team():
                parsed.teams[each.name] = each
    return parsed, verdicts


def problem_of(each: Resource, headers: frozenset[str], keys_folder: PurePosixPath) -> str | None:
    """Why an object can't be part of any configuration with this base. None: it can."""
    try:
        match each:
            case Model():
                return _session_problem(conversion.model_config(each, (), keys_folder).routing, headers)
            case ModelRoute():
                conversion.cache_policy(each)
                return _session_problem(conversion.route_config(each).routing, headers)
            case Team():
                conversion.team_config(each)
    except ValidationError as error:
        return as_sentence(error)
    return None


def _session_problem(routing: RoutingConfig | None, headers: frozenset[str]) -> str | None:
    kind, _, header = routing.session.partition(":") if routing else ("", "", "")
    if kind == "header" and header not in headers:
        return f"spec.routing.session: header {header!r} is not in gateway.forward_headers of the platform"
    return None


def as_sentence(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    found = []
    for problem in error.errors(include_url=False)[:MAX_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"])
        found.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": "))
    return "; ".join(found)
