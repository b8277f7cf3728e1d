"""How each command of the CLI is driven against a platform elsewhere, with the key of an organisation's admin.

A new command needs a line: in SCENARIO, in the order of an admin's day, or in ELSEWHERE with the reason.
`{…}` are values that earlier lines or the test provide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Line:
    """A command line, and what it must do."""

    words: str
    exit_code: int = 0
    says: str = ""
    """What its output has."""
    keeps: str = ""
    """Under this name, the first word of its output is kept for later lines; `name=member`: a member of its JSON."""
    input: str = ""


PLATFORM_ONLY = "admins of the platform"

SCENARIO = [
    Line("context set far --url {url} --key {key} --use", says="far saved"),
    Line("context list", says="far"),
    Line("context current", says="QUARTERDECK_URL"),
    Line("context use local", says="in use"),
    Line("context delete far", says="deleted"),
    Line("status", says="ready"),
    Line("models", says="chat"),
    Line("models list", says="simulated"),
    Line("models show chat", 1, PLATFORM_ONLY),
    Line("models add org/model", 1, PLATFORM_ONLY),
    Line("models update chat --context 100", 1, PLATFORM_ONLY),
    Line("models stop chat", 1, PLATFORM_ONLY),
    Line("models start chat", 1, PLATFORM_ONLY),
    Line("models remove chat", 1, PLATFORM_ONLY),
    Line("models pull org/model", 1, PLATFORM_ONLY),
    Line("models adapters list", 1, PLATFORM_ONLY),
    Line("models adapters add chat /data/adapter", 1, PLATFORM_ONLY),
    Line("models adapters remove tuned", 1, PLATFORM_ONLY),
    Line("env", says="OPENAI_BASE_URL={url}/v1"),
    Line("chat -m chat hello", says="\n"),
    Line("chat --json -m chat hello", keeps="request=request_id"),
    Line("ask -m chat --max-steps 1 hello", says="\n"),
    Line("ask -m chat --json --max-steps 1 hello", says="output_tokens"),
    Line("keys create notebook --team red --budget 5", keeps="secret"),
    Line("keys list", says="notebook"),
    Line("keys list --team rod", 1, "No such team"),
    Line("keys show notebook", says="red"),
    Line("keys update notebook --priority 2", says="2"),
    Line("keys rotate notebook", keeps="secret"),
    Line("keys revoke notebook", says="revoked"),
    Line("keys revoke notebook", 1, "no key is named 'notebook' that is not revoked"),
    Line("keys list --org default", 1, PLATFORM_ONLY),
    Line("teams create blue --budget 3", says="blue"),
    Line("teams list", says="red"),
    Line("teams show blue", says="3"),
    Line("teams update blue --priority 1", says="1"),
    Line("teams delete blue", says="deleted"),
    Line("orgs list", says="acme"),
    Line("orgs show acme", says="acme"),
    Line("orgs create other", 1, PLATFORM_ONLY),
    Line("orgs update acme --no-budget", 1, PLATFORM_ONLY),
    Line("orgs delete acme --yes", 1, PLATFORM_ONLY),
    Line("prompts create {folder}/greet.yaml", says="greet: create"),
    Line("prompts apply {folder}", says="unchanged: 1"),
    Line("prompts list", says="greet"),
    Line("prompts show greet", says="Hello"),
    Line("prompts render greet --version 1 --var name=Ada", says="Hello Ada"),
    Line("prompts create {folder}/next/greet.yaml", says="version 2"),
    Line("prompts diff greet 1 2", says="+"),
    Line("prompts label greet production 1", says="version 1"),
    Line("prompts label greet production 2", says="version 2"),
    Line("prompts rollback greet production", says="version 1"),
    Line("prompts split greet production 1=90 2=10", says="1:90/2:10"),
    Line("prompts events greet", says="production"),
    Line("prompts compare greet 1 2", says="verdict"),
    Line("prompts sync", says="NAME"),
    Line("prompts pull {folder}/pulled", says="prompts: 1"),
    Line("prompts archive greet", says="archived"),
    Line("prompts delete greet --yes", says="deleted"),
    Line("requests list --key boss", says="{request}"),
    Line("requests show {request}", says="chat"),
    Line("requests export {folder}/log.jsonl", says="exported"),
    Line("requests delete-contents --request {request} --yes", says="deleted"),
    Line("usage", says="boss"),
    Line("usage --by team --key boss", says="default"),
    Line("usage --key none", 1, "no key is named 'none'"),
    Line("usage --model none", 1, "No such model: 'none'"),
    Line("usage --org default", 1, PLATFORM_ONLY),
    Line("feedback create {request} --thumbs up", says="up"),
    Line("feedback list", says="{request}"),
    Line("feedback list --json", keeps="score=data.0.id"),
    Line("feedback delete {score}", says="deleted"),
    Line("files upload {requests} --purpose user_data", keeps="file"),
    Line("files list --purpose user_data", says="{file}"),
    Line("files show {file}", says="user_data"),
    Line("files download {file} -o {folder}/copy.jsonl", says="copy.jsonl"),
    Line("files delete {file} --yes", says="deleted"),
    Line("batches create {requests}", keeps="batch"),
    Line("batches list", says="{batch}"),
    Line("batches show {batch}", says="in"),
    Line("batches cancel {batch}", says="cancel"),
    Line("webhooks create https://example.com/hook --name w", keeps="secret"),
    Line("webhooks list --json", keeps="webhook=data.0.id"),
    Line("webhooks list", says="{webhook}"),
    Line("webhooks show {webhook}", says="example.com"),
    Line("webhooks update {webhook} --disable", says="no"),
    Line("webhooks rotate {webhook}", keeps="secret"),
    Line("webhooks test {webhook}", 1),
    Line("webhooks delete {webhook}", says="deleted"),
    Line("cache status", says="answers"),
    Line("cache purge", says="removed"),
]

ELSEWHERE = {
    "requests tail": "followed in a test of its own: it has no end",
    "up": "this machine",
    "down": "this machine",
    "restart": "this machine",
    "logs": "this machine",
    "config check": "this machine",
    "setup dashboards": "this machine",
    "setup engine": "this machine",
    "setup load": "this machine",
    "setup phoenix": "this machine",
    "setup redis": "this machine",
    "backup create": "this machine",
    "backup restore": "this machine",
    "backup show": "this machine",
    "service install": "this machine",
    "service uninstall": "this machine",
    "images list": "this machine",
    "images load": "this machine",
    "images save": "this machine",
    "batch run": "followed to its end in a test of its own",
    "bench": "this machine",
    "doctor": "this machine, or a cluster through kubectl",
    "completion": "asks nothing",
}

LISTINGS = [
    *("status", "models", "keys list", "teams list", "orgs list", "prompts list", "prompts events greet"),
    *(
        "prompts sync",
        "requests list",
        "usage",
        "usage --by key --by model --by user",
        "feedback list",
        "webhooks list",
    ),
    *("cache status", "context list", "files list", "batches list", "models list"),
]
"""Commands that list things in a terminal."""

WITHOUT_JSON = {
    "context set": "prints a line",
    "context use": "prints a line",
    "context delete": "prints a line",
    "up": "runs",
    "down": "prints a line",
    "restart": "runs",
    "logs": "prints the lines of the logs",
    "setup dashboards": "prints its progress",
    "setup engine": "prints its progress",
    "setup load": "prints its progress",
    "setup phoenix": "prints its progress",
    "setup redis": "prints its progress",
    "backup create": "prints a line",
    "backup restore": "prints a line",
    "service install": "prints the unit, or a line",
    "service uninstall": "prints a line",
    "images load": "prints its progress",
    "images save": "prints its progress",
    "bench": "writes a report",
    "completion": "prints a script",
    "requests export": "writes JSON lines",
}
"""Every other command has `--json`."""


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, with its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if (child := command.get_command(context, name)) is not None:
            yield from leaves(child, f"{path} {name}".strip())
