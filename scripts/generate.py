"""Write docs/reference from the code that it describes: `make docs`; `--check` says what is out of date.

A page is a function without arguments that returns Markdown, so a new page is a line in PAGES. Words come from the
source alone: attribute docstrings of settings, helps of commands.
"""

import argparse
import ast
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from quarterdeck.cli.__main__ import cli
from quarterdeck.gateway.routes import (
    admin_cache,
    admin_keys,
    admin_organizations,
    admin_teams,
    admin_usage,
    health,
    inference,
    models,
)
from quarterdeck.inference.call import Head, Reply
from quarterdeck.settings.config import Config
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.restart import process_to_restart
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.worker_metrics import WorkerMetrics

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Made by scripts/generate.py from the source: change it there, then `make docs`. -->\n"


# ---- settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """quarterdeck.yaml and the environment's variables."""
    parts = [
        NOTICE,
        "# Settings\n",
        "Two places: the file `quarterdeck.yaml` says what is served and what a key may take; the environment says"
        " where a process finds its parts.\n",
        "## Environment variables\n",
        *(f"- {text}" for source in (Environment, EngineDoorSettings) for text in environment_lines(source)),
        "\n## quarterdeck.yaml\n",
        "A mistake is reported with its line. `quarterdeck up --config FILE`, or `QUARTERDECK_CONFIG`; without either"
        " the file that ships with the package (`src/quarterdeck/settings/quarterdeck.yaml`).\n",
    ]
    for path, model in models_below(Config):
        parts.append(f"### {f'`{path}`' if path else 'The file'}\n")
        parts.append(f"{inspect.cleandoc(model.__doc__ or '')}\n")
        parts += [field_text(name, field) for name, field in model.model_fields.items()]
    return "\n".join(parts)


def environment_lines(source: type) -> Iterator[str]:
    """The docstrings below a settings class's fields, `VARIABLE: what` or `VARIABLE, default: what`, in their order."""
    body = ast.parse(textwrap.dedent(inspect.getsource(source))).body[0]
    for field, text in attribute_docstrings(body):
        words = " ".join(text.split())
        variable = re.match(r"[A-Z][A-Z0-9_]+", words)
        if field != "variables" and variable:
            yield f"`{variable[0]}`{words[variable.end() :]}"


def attribute_docstrings(body: ast.AST) -> Iterator[tuple[str, str]]:
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, doc in itertools.pairwise(statements):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            yield field.target.id, str(doc.value.value)


def models_below(root: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """Each settings class once, with the path under which it first stands in the file."""
    found: dict[type[BaseModel], str] = {}
    waiting = [("", root)]
    while waiting:
        path, model = waiting.pop(0)
        if model in found:
            continue
        found[model] = path
        for name, field in model.model_fields.items():
            many = is_many(field.annotation)
            for inner in models_in(field.annotation):
                waiting.append((f"{path}.{name}{many}".lstrip("."), inner))
    return [(path, model) for model, path in found.items()]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def is_many(annotation: Any) -> str:
    """What a path says of a list or of a mapping by name."""
    return {tuple: "[]", list: "[]", dict: ".<name>"}.get(typing.get_origin(annotation) or annotation, "")


def field_text(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else default_of(field)
    words = inspect.cleandoc(field.description or "").replace("\n", "\n  ")
    if process := process_to_restart(field):
        words += f" A change needs a restart of the {process}."
    return f"- **`{name}`** ({type_of(field.annotation)}, {default}). {words}\n"


def default_of(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "has defaults"
    if value is None:
        return "default none"
    return f"default `{list(value) if isinstance(value, tuple) else value}`"


def type_of(annotation: Any) -> str:
    """A type in words that a writer of YAML understands."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_of(part) for part in parts if part is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return type_of(parts[0])
    if origin in (tuple, list):
        return f"list of {type_of(parts[0])}"
    if origin is dict:
        return f"mapping to {type_of(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(
        annotation, getattr(annotation, "__name__", "anything").lower()
    )


# ---- commands --------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Each command's own `--help`."""
    parts = [NOTICE, "# Commands\n", "`quarterdeck`, or `qd`. In a checkout: `.envs/core/bin/quarterdeck`.\n"]
    parts += [f"## `{name}`\n\n```text\n{text}\n```\n" for name, text in helps(cli, "quarterdeck", None)]
    return "\n".join(parts)


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    settings = {} if parent else command.context_settings
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            if found := command.get_command(context, inner):
                yield from helps(found, inner, context)


# ---- routes ----------------------------------------------------------------------------------------------------------


SECTIONS: dict[str, Any] = {
    "Models": models,
    "Keys": admin_keys,
    "Teams": admin_teams,
    "Organisations": admin_organizations,
    "Usage": admin_usage,
    "Cache": admin_cache,
    "Health": health,
}


def api_page() -> str:
    """The gateway's routes, in the words of the functions that answer them."""
    parts = [
        NOTICE,
        "# The gateway's HTTP API\n",
        "Every route needs `Authorization: Bearer <key>`, except `/healthz`, `/readyz` and `/metrics`; `/admin/…` needs"
        " an admin key. Requests and answers of the model routes are OpenAI's (and vLLM's, for `/tokenize`,"
        " `/detokenize` and `/v1/score`); fields that the gateway does not know reach the engine untouched.\n",
        "## Models at work\n",
        *(f"- `POST {route.path}`" for route in inference.routes(Unreached())),
        "",
    ]
    for title, module in SECTIONS.items():
        parts.append(f"## {title}\n")
        for route in module.router.routes:
            if isinstance(route, APIRoute):
                verbs = ", ".join(sorted((route.methods or set()) - {"HEAD"}))
                parts.append(f"- `{verbs} {route.path}`: {' '.join((route.endpoint.__doc__ or '').split())}")
        parts.append("")
        for route in module.router.routes:
            body = route.body_field if isinstance(route, APIRoute) else None
            if body is not None and isinstance(route, APIRoute):
                model = body.field_info.annotation
                parts.append(f"The body of `POST {route.path}`:\n")
                parts += [field_text(name, field) for name, field in getattr(model, "model_fields", {}).items()]
    return "\n".join(parts)


class Unreached:
    """A pipeline: the routes are only listed here."""

    async def call(self, head: Head, body: bytes) -> Reply:
        raise NotImplementedError


# ---- metrics ---------------------------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every series, in its own help's words."""
    parts = [
        NOTICE,
        "# Metrics\n",
        "Prometheus' text, without a key. A counter's series end in `_total`, a histogram's in `_bucket`, `_sum` and"
        " `_count`. The engines' own series are vLLM's, at each endpoint's `/metrics`.\n",
    ]
    for title, metrics in (
        ("Gateway: `GET /metrics` on its port", GatewayMetrics()),
        ("Worker: `GET /metrics` on QUARTERDECK_WORKER_PORT", WorkerMetrics()),
    ):
        parts.append(f"## {title}\n")
        for name, kind, words, labels in metrics.describe():
            by = f" by {', '.join(labels)}" if labels else ""
            parts.append(f"- `{name}` ({kind}{by}): {words}")
        parts.append("")
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/settings.md": settings_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/api.md": api_page,
    "docs/reference/metrics.md": metrics_page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is out of date")
    is_check = parser.parse_args().check
    stale = []
    for path, page in PAGES.items():
        file, text = ROOT / path, page().rstrip("\n") + "\n"
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not is_check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path} {'is out of date: run `make docs`' if is_check else 'written'}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
