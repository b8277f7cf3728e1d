"""Requests that the commands on prompts have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import httpx

from quarterdeck.cli.client import json_object, list_all

if TYPE_CHECKING:
    from quarterdeck.cli.prompt_files import PromptState, Step

PATH = "/v1/prompts"


def path_of(client: httpx.Client, name: str) -> str:
    """The URL of a prompt. A name with a `/` is looked up, as only its id can stand in a path."""
    if "/" in name:
        found = json_object(client.get(PATH, params={"name": name, "archived": "true"}))["data"]
        if not found:
            raise click.ClickException(f"The prompt '{name}' does not exist.")
        name = found[0]["id"]
    return f"{PATH}/{quote(name, safe='')}"


def states_of(client: httpx.Client, name: str | None = None) -> "list[PromptState]":
    """All prompts with their newest versions, or the one of this name."""
    from quarterdeck.cli.prompt_files import PromptState  # imports pydantic and yaml

    found = list(list_all(client, PATH, archived="true", name=name))
    return [PromptState(each, json_object(client.get(f"{PATH}/{each['id']}/versions/latest"))) for each in found]


def carry_out(client: httpx.Client, steps: "Sequence[Step]", message: str, *, is_quiet: bool = False) -> None:
    """One step after the other; what was done before one that fails stays done, and is not done again."""
    for step in steps:
        _carry_out(client, step, message)
        if not is_quiet:
            click.echo(f"{step.name}: {step.text}")


def _carry_out(client: httpx.Client, step: "Step", message: str) -> None:
    file = step.file
    if file is None:
        json_object(client.delete(path_of(client, step.name)))
        return
    teams = None if file.teams is None else list(file.teams)
    described = {} if file.description is None else {"description": file.description}
    if step.kind == "create":
        own = {"name": file.name, "message": message, "labels": list(file.labels), "teams": teams, **described}
        json_object(client.post(PATH, json={**file.content, **own}))
        return
    path = path_of(client, step.name)
    if step.kind == "update":
        json_object(client.post(path, json={**described, **({"teams": teams} if file.says_teams else {})}))
    elif step.kind == "version":
        json_object(client.post(f"{path}/versions", json={**file.content, "message": message}))
    else:
        latest = json_object(client.get(path))["latest_version"]
        json_object(client.post(f"{path}/labels/{step.label}", json={"version": latest}))
