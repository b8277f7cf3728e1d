"""Names and ids that the shell completes: those of the platform's objects, and saved contexts.

Asked of the platform while the user waits for TAB, so with a short time-out; where it does not answer, nothing is
suggested.
"""

import contextlib
import re
from collections.abc import Callable, Iterator

import click
import httpx
from click.shell_completion import CompletionItem

from quarterdeck.cli import contexts, target
from quarterdeck.settings.environment import Environment

TIMEOUT_SECONDS = 1.0
_PATHS = {
    "keys": ("/admin/keys?limit=100", "name"),
    "models": ("/v1/models", "id"),
    "adapters": ("/admin/adapters", "id"),
    "prompts": ("/v1/prompts?limit=100", "name"),
    "files": ("/v1/files?limit=100", "id"),
    "batches": ("/v1/batches?limit=100", "id"),
    "webhooks": ("/admin/webhooks?limit=100", "id"),
    "requests": ("/admin/requests?limit=20", "id"),
    "scores": ("/admin/scores?limit=20", "id"),
    "teams": ("/admin/teams?limit=100", "id"),
    "orgs": ("/admin/organizations?limit=100", "id"),
}
_PLAIN = re.compile(r"[\w.:/@+-]+")
"""Names that a shell takes as they stand. TAB must not put `$(…)` of a platform into a command line."""
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def completer(kind: str) -> Completer:
    """For click's `shell_complete`. `kind`: of `_PATHS`, or contexts."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return [
            CompletionItem(name) for name in _found(ctx, kind) if name.startswith(incomplete) and _PLAIN.fullmatch(name)
        ]

    return complete


def _found(ctx: click.Context, kind: str) -> list[str]:
    with ctx.scope(cleanup=False), contextlib.suppress(click.ClickException, httpx.HTTPError, ValueError):
        if kind == "contexts":
            return [contexts.LOCAL, *contexts.read(contexts.path_of(Environment.read().variables)).named]
        return sorted(set(_asked(ctx, kind)))
    return []


def _asked(ctx: click.Context, kind: str) -> Iterator[str]:
    path, field = _PATHS[kind]
    given = {name: value for name, value in ctx.find_root().params.items() if value is not None}
    ctx.meta.setdefault(target.META, target.Target(**given))  # the group's callback, which keeps them, does not run
    if target.current().is_cluster:
        return  # a port-forward takes seconds
    user = target.resolve()
    headers = {"Authorization": f"Bearer {user.admin_key}"}
    with httpx.Client(
        base_url=user.gateway_url,
        headers=headers,
        timeout=TIMEOUT_SECONDS,
        trust_env=not target.current().is_local,
        transport=ctx.find_object(httpx.BaseTransport),
    ) as client:
        response = client.get(path).raise_for_status()
    for each in response.json()["data"]:
        if not each.get("revoked"):
            yield str(each[field])
