"""quarterdeck.yaml as text."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.config import Config
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.routes import RouteConfig
from quarterdeck.settings.tenancy import TeamConfig


def encode(
    base: Config,
    models: Iterable[ModelConfig],
    compiled_routes: Iterable[RouteConfig],
    teams: Mapping[str, TeamConfig],
    policies: Mapping[str, CachePolicy],
) -> tuple[str, Config]:
    """The document, which is JSON and so YAML, and what it says. The base configuration's own values stay."""
    data = base.model_dump(mode="json", exclude_unset=True)
    data["models"] = [*data.get("models", ()), *map(_dump, models)]
    if added := [*map(_dump, compiled_routes)]:
        data["routes"] = [*data.get("routes", ()), *added]
    if teams:
        data["teams"] = {name: _dump(each) for name, each in teams.items()} | data.get("teams", {})
    if policies:
        own = data.setdefault("cache", {}).setdefault("policies", {})
        data["cache"]["policies"] = {name: _dump(each) for name, each in policies.items()} | own
    return json.dumps(data, sort_keys=True, ensure_ascii=False, indent=1), Config.model_validate(data)


def _dump(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_defaults=True)
