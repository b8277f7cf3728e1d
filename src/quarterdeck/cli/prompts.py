"""`quarterdeck prompts`: prompts, their versions, labels and rollouts; and their files in Git."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import prompt_sync
from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, printable, show
from quarterdeck.cli.prompt_client import PATH, carry_out, path_of, states_of

_Folder = click.Path(file_okay=False, path_type=Path)


@click.group("prompts", short_help="Manage prompts, versions, labels and rollouts.")
def command() -> None:
    """Manage prompts, their versions, labels and rollouts, here or by files in Git."""


command.add_command(prompt_sync.command)


@command.command("list")
@click.option("--archived", is_flag=True, help="Also archived prompts.")
@as_json
def list_prompts(is_json: bool, archived: bool) -> None:
    """List prompts by name."""
    with admin_client() as client:
        found = list(list_all(client, PATH, archived="true" if archived else None))
    if is_json:
        print_json(found)
        return
    rows = [
        (
            prompt["name"],
            str(prompt["latest_version"]),
            ", ".join(f"{label}={_target(target)}" for label, target in prompt["labels"].items()) or "-",
            ", ".join(prompt["teams"] or ["all"]),
            local_time(prompt["updated"]),
        )
        for prompt in found
    ]
    print_table(("NAME", "NEWEST", "LABELS", "TEAMS", "UPDATED"), rows, ("UPDATED", "TEAMS"))


@command.command("show")
@click.argument("name")
@click.option("--version", "number", type=click.IntRange(1), help="Show this version. [the newest]")
@as_json
def show_prompt(name: str, number: int | None, is_json: bool) -> None:
    """Show the prompt NAME: its labels, and a version as YAML."""
    from quarterdeck.cli.prompt_files import content_of
    from quarterdeck.resources.prompts.files import to_yaml

    with admin_client() as client:
        path = path_of(client, name)
        prompt = json_object(client.get(path))
        version = json_object(client.get(f"{path}/versions/{number or 'latest'}"))
    if is_json:
        print_json({**prompt, "version": version})
        return
    labels = ", ".join(f"{label}={_target(target)}" for label, target in prompt["labels"].items())
    show({**prompt, "labels": labels, "version": version["version"], "message": version["message"]})
    click.echo()
    click.echo(printable(to_yaml(content_of(version)).rstrip("\n"), keep="\n"))


@command.command("create")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--message", default="", help="Why it is made.")
@as_json
def create(file: Path, message: str, is_json: bool) -> None:
    """Create the prompt that FILE holds, or its next version."""
    from quarterdeck.cli.prompt_files import FileError, make_plan, read_file

    try:
        wanted = read_file(file)
    except FileError as error:
        raise click.ClickException(str(error)) from None
    with admin_client() as client:
        plan = make_plan([wanted], states_of(client, wanted.name), prune=False)
        carry_out(client, plan.steps, message, is_quiet=is_json)
        prompt = json_object(client.get(path_of(client, wanted.name)))
    for note in plan.notes:
        click.echo(note, err=True)
    if is_json:
        print_json(prompt)
    elif not plan.steps:
        click.echo("nothing to change")


@command.command("diff")
@click.argument("name")
@click.argument("before", type=click.IntRange(1))
@click.argument("after", type=click.IntRange(1))
@as_json
def diff(name: str, before: int, after: int, is_json: bool) -> None:
    """Show what changed from version BEFORE to AFTER of the prompt NAME."""
    with admin_client() as client:
        params = {"from": before, "to": after}
        found = json_object(client.get(f"{path_of(client, name)}/diff", params=params))
    if is_json:
        print_json(found)
    else:
        _echo_diff(found["text"] or "no difference\n")


@command.command("label")
@click.argument("name")
@click.argument("label")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--delete", "is_deleted", is_flag=True, help="Delete the label.")
@click.option("--reason", default="", help="Recorded in the prompt's events.")
@as_json
def label_version(name: str, label: str, version: int | None, is_deleted: bool, reason: str, is_json: bool) -> None:
    """Point LABEL of the prompt NAME at VERSION."""
    if is_deleted == (version is not None):
        raise click.UsageError("give a VERSION or --delete")
    with admin_client() as client:
        path = f"{path_of(client, name)}/labels/{quote(label, safe='')}"
        if is_deleted:
            made = json_object(client.delete(path))
        else:
            made = json_object(client.post(path, json={"version": version, "reason": reason}))
    _done(made, is_json, f"label {label} of {name} deleted" if is_deleted else f"{label} of {name}: version {version}")


@command.command("split")
@click.argument("name")
@click.argument("label")
@click.argument("shares", nargs=-1, required=True, metavar="VERSION=WEIGHT...")
@click.option("--sticky", type=click.Choice(["user", "session", "none"]), default="user", help="Who stays. [user]")
@click.option("--min-requests", type=click.IntRange(10), help="Requests of each version before a bound counts. [50]")
@click.option("--max-error-rate", type=click.FloatRange(0, 1), help="Roll back above this share of errors.")
@click.option("--max-error-rate-increase", type=click.FloatRange(0, 1), help="Roll back above this much more of them.")
@click.option("--max-cost-ratio", type=click.FloatRange(0, min_open=True), help="Roll back above this relative cost.")
@click.option(
    "--max-latency-ratio", type=click.FloatRange(0, min_open=True), help="Roll back above this relative duration."
)
@click.option("--reason", default="", help="Recorded in the prompt's events.")
@as_json
def split(
    name: str, label: str, shares: tuple[str, ...], sticky: str, reason: str, is_json: bool, **bounds: Any
) -> None:
    """Split LABEL of the prompt NAME by weight: `split greet production 3=90 4=10`. The first version is the one in
    use, to which a broken bound rolls back."""
    targets = []
    for share in shares:
        version, _, weight = share.partition("=")
        try:
            targets.append({"version": int(version), "weight": float(weight)})
        except ValueError:
            raise click.UsageError(f"'{share}' is not VERSION=WEIGHT, such as 4=10") from None
    body: dict[str, Any] = {"split": targets, "sticky": sticky, "reason": reason}
    if guard := {bound: value for bound, value in bounds.items() if value is not None}:
        body["guard"] = guard
    with admin_client() as client:
        made = json_object(client.post(f"{path_of(client, name)}/labels/{quote(label, safe='')}", json=body))
    _done(made, is_json, f"{label} of {name}: {_target(made)}")


@command.command("rollback")
@click.argument("name")
@click.argument("label")
@click.option("--to", "version", type=click.IntRange(1), help="Version to go back to. [the one before]")
@click.option("--reason", default="", help="Recorded in the prompt's events.")
@as_json
def rollback(name: str, label: str, version: int | None, reason: str, is_json: bool) -> None:
    """Point LABEL of the prompt NAME at the version that it pointed at before."""
    with admin_client() as client:
        path = f"{path_of(client, name)}/labels/{quote(label, safe='')}/rollback"
        made = json_object(client.post(path, json={"version": version, "reason": reason}))
    _done(made, is_json, f"{label} of {name}: version {made['version']}")


@command.command("archive")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Unarchive it.")
@as_json
def archive(name: str, undo: bool, is_json: bool) -> None:
    """Archive the prompt NAME: it still serves requests, but is not listed and takes no changes."""
    with admin_client() as client:
        made = json_object(client.post(path_of(client, name), json={"archived": not undo}))
    _done(made, is_json, f"{name} {'unarchived' if undo else 'archived'}")


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(name: str, yes: bool, is_json: bool) -> None:
    """Delete the prompt NAME with its versions. Requests that name it are refused from then on."""
    if not yes:
        click.confirm(f"Delete the prompt {name} and all its versions?", abort=True)
    with admin_client() as client:
        made = json_object(client.delete(path_of(client, name)))
    _done(made, is_json, f"{name} deleted")


@command.command("render")
@click.argument("name")
@click.option("--var", "pairs", multiple=True, metavar="NAME=TEXT", help="Value of a text variable; repeatable.")
@click.option("--variables", default="{}", metavar="JSON", help="Values of variables of any type.")
@click.option("--version", "number", type=click.IntRange(1), help="Version. [that of the label]")
@click.option("--label", help="Label. [production]")
@as_json
def render(
    name: str, pairs: tuple[str, ...], variables: str, number: int | None, label: str | None, is_json: bool
) -> None:
    """Render the prompt NAME without calling a model."""
    try:
        values = json.loads(variables)
    except ValueError as error:
        raise click.UsageError(f"--variables: {error}") from None
    if not isinstance(values, dict):
        raise click.UsageError("--variables: expected a JSON object")
    for pair in pairs:
        variable, is_pair, text = pair.partition("=")
        if not is_pair:
            raise click.UsageError(f"'{pair}' is not NAME=TEXT")
        values[variable] = text
    body = {"variables": values, "version": number, "label": label}
    with admin_client() as client:
        found = json_object(client.post(f"{path_of(client, name)}/render", json=body))
    if is_json:
        print_json(found)
        return
    if "text" in found:
        click.echo(printable(found["text"], keep="\n"))
        return
    for message in found["messages"]:
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        click.secho(f"{printable(str(message.get('role')))}:", bold=True)
        click.echo(printable(text, keep="\n"))


@command.command("events")
@click.argument("name")
@as_json
def events(name: str, is_json: bool) -> None:
    """Show what was changed of the prompt NAME, by whom and why, newest first."""
    with admin_client() as client:
        found = list(list_all(client, f"{path_of(client, name)}/events"))
    if is_json:
        print_json(found)
        return
    rows = [
        (local_time(each["created"]), each["kind"], each["label"] or "-", _after(each), each["author"], each["reason"])
        for each in found
    ]
    print_table(("TIME", "EVENT", "LABEL", "NOW", "BY", "REASON"), rows, ("BY", "TIME"))


@command.command("compare")
@click.argument("name")
@click.argument("baseline", type=click.IntRange(1), required=False)
@click.argument("candidate", type=click.IntRange(1), required=False)
@click.option("--label", help="Only requests that this label led to. Of a split: its versions, since it was set.")
@as_json
def compare(name: str, baseline: int | None, candidate: int | None, label: str | None, is_json: bool) -> None:
    """Compare what requests of versions BASELINE and CANDIDATE of the prompt NAME did: errors, cost, latency."""
    given = {"baseline": baseline, "candidate": candidate, "label": label}
    params = {name: value for name, value in given.items() if value is not None}
    with admin_client() as client:
        found = json_object(client.get(f"{path_of(client, name)}/compare", params=params))
    if is_json:
        print_json(found)
        return
    old, new = found["baseline"], found["candidate"]
    click.echo(f"version {old['version']}: {old['requests']} requests, {old['errors']} errors")
    click.echo(f"version {new['version']}: {new['requests']} requests, {new['errors']} errors")
    rows = [
        (each["name"], *(_interval(each[which]) for which in ("baseline", "candidate", "difference")), _verdict(each))
        for each in found["measures"]
    ]
    print_table(("MEASURE", "BASELINE", "CANDIDATE", "DIFFERENCE", "CANDIDATE IS"), rows)
    click.echo(f"verdict: {printable(_verdict(found))}")


@command.command("apply")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Delete prompts that no file holds.")
@click.option("-m", "--message", default="", help="Message of new versions.")
@as_json
def apply(folder: Path, dry_run: bool, prune: bool, message: str, is_json: bool) -> None:
    """Make the platform's prompts what the files of FOLDER say: new versions, labels, descriptions.

    All files are checked before anything changes. Applied again, nothing changes.
    """
    from quarterdeck.cli.prompt_files import FileError, make_plan, read_folder

    try:
        files = read_folder(folder)
    except FileError as error:
        raise click.ClickException(str(error)) from None
    if not files and prune:
        raise click.ClickException(f"{folder} holds no prompt: with --prune, all would be deleted")
    with admin_client() as client:
        plan = make_plan(files, states_of(client), prune=prune)
        for note in plan.notes:
            click.echo(f"note: {note}", err=True)
        if plan.extra:
            click.echo(f"note: not in {folder}: {', '.join(plan.extra)} (--prune deletes them)", err=True)
        if dry_run and not is_json:
            for step in plan.steps:
                click.secho(f"{step.name}: {step.text}", bold=True)
                _echo_diff(step.diff)
        elif not dry_run:
            carry_out(client, plan.steps, message, is_quiet=is_json)
    if is_json:
        steps = [{"prompt": step.name, "change": step.text} for step in plan.steps]
        print_json({"dry_run": dry_run, "changes": steps, "unchanged": plan.unchanged})
        return
    changed = len({step.name for step in plan.steps})
    click.echo(f"{'would change' if dry_run else 'changed'}: {changed}, unchanged: {plan.unchanged}")


@command.command("pull")
@click.argument("folder", type=_Folder)
@click.option("--name", "names", multiple=True, help="Only this prompt; repeatable.")
@as_json
def pull(folder: Path, names: tuple[str, ...], is_json: bool) -> None:
    """Write the platform's prompts to files in FOLDER, one each. Other files there stay as they are."""
    from quarterdeck.cli import prompt_files

    with admin_client() as client:
        states = [state for name in names for state in states_of(client, name)] if names else states_of(client)
    missing = sorted(set(names) - {state.name for state in states})
    if missing:
        raise click.ClickException(f"no such prompt: {', '.join(missing)}")
    written = []
    for state in states:
        path, text = prompt_files.path_of(folder, state.name), prompt_files.file_text(state)
        try:
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror}") from None
        written.append(str(path))
        if not is_json:
            click.echo(f"wrote {path}")
    if is_json:
        print_json({"prompts": len(states), "written": written})
    else:
        click.echo(f"prompts: {len(states)}")


def _done(made: dict[str, Any], is_json: bool, text: str) -> None:
    if is_json:
        print_json(made)
    else:
        click.echo(text)


def _target(target: dict[str, Any]) -> str:
    if "split" not in target:
        return str(target["version"])
    shares = "/".join(f"{each['version']}:{each['weight']:g}" for each in target["split"])
    return shares + (" guarded" if target.get("guard") else "")


def _after(event: dict[str, Any]) -> str:
    after = event["after"] or {}
    if "version" in after or "split" in after:
        return _target(
            {**after, "split": [{"weight": 1, **each} for each in after["split"]]} if "split" in after else after
        )
    return ", ".join(after) or "-"


def _interval(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return f"{value:.4g}"
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def _verdict(found: dict[str, Any]) -> str:
    if found["verdict"] != "unclear":
        return str(found["verdict"])
    needed = found["requests_to_tell"]
    return "can't tell yet" + (f"; about {needed} requests of each version would tell" if needed else "")


def _echo_diff(text: str) -> None:
    """A unified diff in colour, where the output is a terminal."""
    for line in text.splitlines():
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(printable(line), fg=color, bold=line.startswith(("+++", "---")))
