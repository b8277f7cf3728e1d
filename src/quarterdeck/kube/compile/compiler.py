"""All objects of a namespace compiled into quarterdeck.yaml and engines.json.

The result does not depend on the order of the objects, and equal inputs have equal bytes. An object that can't be
compiled harms only itself and what names it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from quarterdeck.kube.compile import claims, conversion, routes
from quarterdeck.kube.compile.conversion import EndpointKey
from quarterdeck.kube.compile.documents import encode
from quarterdeck.kube.compile.objects import Objects, as_sentence, problem_of, read
from quarterdeck.kube.compile.routes import Names, Split
from quarterdeck.kube.compile.runtime import Runtime
from quarterdeck.kube.compile.verdicts import Key, Verdict, refused
from quarterdeck.kube.compiled import Documents, EngineEntry, EngineIndex
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.reserved import NOTHING, Reserved
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.route import ModelRoute
from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.config import Config
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.routes import RouteConfig

KEYS_FOLDER = PurePosixPath("/run/secrets/quarterdeck/endpoints")
"""Where gateways mount the Secret with API keys of external endpoints."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The result."""

    verdicts: Mapping[Key, Verdict]
    """On each object, by kind and name."""
    problem: str | None = None
    """Why nothing could be compiled: the base configuration is invalid."""
    config: Config | None = None
    documents: Documents | None = None
    """None where `problem` is set: the last good documents stay in force."""
    index: EngineIndex = field(default_factory=EngineIndex)
    endpoint_keys: tuple[EndpointKey, ...] = ()
    """API keys that the configuration reads from files."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Public names of engines (models, their revisions, adapters), with the Model object's name."""


def compile_objects(
    base: Mapping[str, Any],
    bodies: Iterable[Mapping[str, Any]],
    runtimes: Mapping[str, Runtime],
    *,
    keys_folder: PurePosixPath = KEYS_FOLDER,
    reserved: Reserved = NOTHING,
) -> Compiled:
    """Compile objects as the API returns them; other kinds, and objects that are being deleted, are left out.

    `base`: the configuration that goes before all objects, in the file's shape. `runtimes`: by the Model's name.
    `reserved`: what no object may name.
    """
    parsed, verdicts = read(bodies)
    try:
        start = Config.model_validate({"models": (), **base})
    except (ValidationError, RecursionError) as error:
        return Compiled(verdicts, problem=f"the platform's configuration is invalid: {as_sentence(error)}")
    headers = frozenset(start.gateway.forward_headers)
    for kind, items in parsed.by_kind():
        for name, each in sorted(items.items()):
            problem = problem_of(each, headers, keys_folder) or reserved.problem_of(each)
            if problem is not None:
                verdicts[kind, name] = refused(each.metadata.generation, Reason.INVALID_SPEC, problem)
                del items[name]
    _give_names(parsed, start, verdicts)
    return _assemble(start, parsed, verdicts, runtimes, keys_folder)


# ---- names -----------------------------------------------------------------------------------------------------------


def _give_names(parsed: Objects, base: Config, verdicts: dict[Key, Verdict]) -> None:
    """Refuse the objects whose names are taken, and remove them."""
    taken: dict[str, str] = {}
    for model in base.models:
        adapters = [each.name for each in model.engine.adapters] if model.engine else []
        taken |= dict.fromkeys((model.name, *model.aliases, *adapters), claims.PLATFORM)
    taken |= dict.fromkeys((route.name for route in base.routes), claims.PLATFORM)
    served = [
        *(claims.Claimant(m.ref, m.metadata, (m.served_name, *m.spec.aliases)) for m in parsed.models.values()),
        *(claims.Claimant(a.ref, a.metadata, (a.served_name,)) for a in parsed.adapters.values()),
        *(claims.Claimant(r.ref, r.metadata, (r.served_name,)) for r in parsed.routes.values()),
    ]
    teams = [claims.Claimant(t.ref, t.metadata, (t.team_name,)) for t in parsed.teams.values()]
    conflicts = claims.settle(served, taken) | claims.settle(teams, dict.fromkeys(base.teams, claims.PLATFORM))
    for kind, items in parsed.by_kind():
        for name, each in sorted(items.items()):
            generation, conflict = each.metadata.generation, conflicts[each.ref]
            if conflict is None:
                verdicts[kind, name] = Verdict(generation)
            else:
                verdicts[kind, name] = refused(generation, Reason.NAME_CONFLICT, str(conflict))
                del items[name]


# ---- the documents ---------------------------------------------------------------------------------------------------


def _assemble(
    base: Config,
    parsed: Objects,
    verdicts: dict[Key, Verdict],
    runtimes: Mapping[str, Runtime],
    keys_folder: PurePosixPath,
) -> Compiled:
    adapters = _adapters_by_model(parsed, verdicts)
    models: list[ModelConfig] = []
    compiled_routes: list[RouteConfig] = []
    policies: dict[str, CachePolicy] = {}
    engines: dict[str, EngineEntry] = {}
    splits: dict[str, Split] = {}
    for name, model in sorted(parsed.models.items()):
        own = adapters.get(name, ())
        runtime = runtimes.get(name, Runtime())
        if not model.has_engine or runtime.canary is None:
            models.append(conversion.model_config(model, own, keys_folder))
            if model.has_engine:
                engines[name] = _entry(model, runtime, own)
            continue
        canary = runtime.canary
        revisions = {each: f"{model.served_name}@{each}" for each in (canary.stable, canary.candidate)}
        split = Split(revisions[canary.stable], revisions[canary.candidate], canary.weight)
        splits[model.served_name] = split
        compiled_routes += routes.routes_of_split(model.served_name, model.spec.aliases, split)
        if (policy := base.cache.policies.get(model.served_name)) is not None:
            policies |= dict.fromkeys(model.spec.aliases, policy)  # a model's policy covers its aliases, a route's not
        for revision, public in revisions.items():
            loaded = own if revision == canary.stable else ()
            models.append(conversion.model_config(model, loaded, keys_folder, name=public))
            engines[f"{name}@{revision}"] = _entry(model, runtime, loaded, revision=revision)
    names = Names(
        models=_route_targets((*base.models, *models))
        - {public for split in splits.values() for public in (split.stable, split.candidate)},
        splits=splits,
        aliases={alias: model.name for model in base.models for alias in model.aliases}
        | {alias: model.served_name for model in parsed.models.values() for alias in model.spec.aliases},
        routes=frozenset(route.served_name for route in parsed.routes.values()) | {each.name for each in base.routes},
    )
    for name, route in sorted(parsed.routes.items()):
        resolved, problems = routes.resolve(conversion.route_config(route), names)
        if problems:
            verdicts[ModelRoute.kind, name] = Verdict(
                route.metadata.generation,
                is_resolved=False,
                resolved_reason=Reason.MODEL_NOT_FOUND,
                resolved_message="; ".join(problems),
                is_compiled=resolved is not None,
            )
        if resolved is not None:
            compiled_routes.append(resolved)
            if (policy := conversion.cache_policy(route)) is not None:
                policies[route.served_name] = policy
    teams = {team.team_name: conversion.team_config(team) for team in parsed.teams.values()}
    text, config = encode(base, models, compiled_routes, teams, policies)
    index = EngineIndex(engines=dict(sorted(engines.items())))
    return Compiled(
        verdicts,
        config=config,
        documents=Documents(config=text, engines=index.encode()),
        index=index,
        endpoint_keys=conversion.endpoint_keys(parsed.models.values()),
        names={
            public: name
            for name, model in parsed.models.items()
            if model.has_engine
            for public in (
                model.served_name,
                *(entry.model for entry in index.engines.values() if entry.object == name),
                *(each.served_name for each in adapters.get(name, ())),
            )
        },
    )


def _adapters_by_model(parsed: Objects, verdicts: dict[Key, Verdict]) -> dict[str, list[ModelAdapter]]:
    """The adapters whose Model exists and takes adapters, by its name; a verdict on the others."""
    found: dict[str, list[ModelAdapter]] = {}
    for name, adapter in sorted(parsed.adapters.items()):
        base = parsed.models.get(adapter.spec.model_ref.name)
        reason, message = Reason.RESOLVED, ""
        if base is None:
            reason = Reason.MODEL_NOT_FOUND
            message = f"no Model {adapter.spec.model_ref.name!r} that is accepted"
        elif not base.has_engine or base.spec.task != "generate":
            reason = Reason.ADAPTERS_DISABLED
            message = f"Model {base.name} takes no adapters: it has external endpoints, or embeds"
        elif base.spec.adapters.max == 0:
            reason = Reason.ADAPTERS_DISABLED
            message = f"Model {base.name} takes no adapters: set its spec.adapters.max"
        if reason is Reason.RESOLVED and base is not None:
            found.setdefault(base.name, []).append(adapter)
        else:
            verdicts[ModelAdapter.kind, name] = Verdict(
                adapter.metadata.generation,
                is_resolved=False,
                resolved_reason=reason,
                resolved_message=message,
                is_compiled=False,
            )
    return found


def _entry(
    model: Model, runtime: Runtime, adapters: Iterable[ModelAdapter], *, revision: str | None = None
) -> EngineEntry:
    public = model.served_name if revision is None else f"{model.served_name}@{revision}"
    by_name = {each.name: each.served_name for each in adapters}
    return EngineEntry(
        object=model.name,
        revision=revision,
        model=public,
        engine_name=runtime.engine_name or (model.served_name if revision is not None else None),
        version=conversion.weights_version(model),
        task=model.spec.task,
        max_running=conversion.max_running(model),
        adapters={by_name[name]: each for name, each in sorted(runtime.adapters.items()) if name in by_name},
        failed_adapters={
            by_name[name]: each for name, each in sorted(runtime.failed_adapters.items()) if name in by_name
        },
        state=runtime.state,
        detail=runtime.detail,
    )


def _route_targets(models: Iterable[ModelConfig]) -> frozenset[str]:
    """What a route can lead to: models and adapters."""
    return frozenset(
        name
        for model in models
        for name in (model.name, *(each.name for each in (model.engine.adapters if model.engine else ())))
    )
