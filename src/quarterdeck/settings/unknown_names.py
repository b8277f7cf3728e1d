"""Names in a valid configuration that nothing has, such as a cache policy of a model that does not exist. Pure."""

import difflib
from collections.abc import Iterable, Sequence

from quarterdeck.settings.config import Config

DEFAULT_TEAM = "default"


def unknown_names(config: Config) -> list[str]:
    """A line for each name. A team may also exist in the database only: its line says so."""
    names = model_names(config)
    found = [
        f"cache.policies.{name}: no model, alias, adapter or route has this name{did_you_mean(name, names)}"
        for name in config.cache.policies
        if name not in names
    ]
    teams = {*config.teams, DEFAULT_TEAM}
    # Teams of other organisations (`org/team`) are never in the file.
    found += [
        f"queue.weights.{team}: no team of this file has this name; one made by the admin API may"
        f"{did_you_mean(team, teams)}"
        for team in config.queue.weights
        if team not in teams and "/" not in team
    ]
    return found


def unknown_key_models(config: Config, keys: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """A line for each model that a key may use and that does not exist. `keys`: their names and models."""
    names = model_names(config)
    return [
        f"key {key}: no model, alias, adapter or route is named '{model}'{did_you_mean(model, names)}"
        for key, models in keys
        for model in models
        if model not in names
    ]


def model_names(config: Config) -> set[str]:
    """All that a request may name as its model."""
    names = {name for model in config.models for name in (model.name, *model.aliases)}
    names |= {adapter.name for model in config.models if model.engine for adapter in model.engine.adapters}
    return names | {route.name for route in config.routes}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'chat'?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
