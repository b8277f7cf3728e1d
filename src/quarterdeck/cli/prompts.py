"""`quarterdeck prompts`: prompts, their versions, labels and rollouts; and their files in Git."""

import json
from pathlib import Path

import click

from quarterdeck.cli import prompt_sync
from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, printable, say, show
from quarterdeck.cli.prompt_client import PATH, carry_out, path_of, states_of
from quarterdeck.cli.prompt_rollouts import COMMANDS, print_done, target_text
from quarterdeck.cli.suggestions import completer

_Folder = click.Path(file_okay=False, path_type=Path)


@click.group("prompts", short_help="Manage prompts, versions, labels and rollouts.")
def command() -> None:
    """Manage prompts, their versions, labels and rollouts, here or by files in Git."""


command.add_command(prompt_sync.command)
for each in COMMANDS:
    command.add_command(each)


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
    if not found:
        say("no prompts", is_note=True)
        return
    rows = [
        (
            prompt["name"],
            str(prompt["latest_version"]),
            ", ".join(f"{label}={target_text(target)}" for label, target in prompt["labels"].items()) or "-",
            ", ".join(prompt["teams"] or ["all"]),
            local_time(prompt["updated"]),
        )
        for prompt in found
    ]
    print_table(("NAME", "NEWEST", "LABELS", "TEAMS", "UPDATED"), rows, ("UPDATED", "TEAMS"))


@command.command("show")
@click.argument("name", shell_complete=completer("prompts"))
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
    labels = ", ".join(f"{label}={target_text(target)}" for label, target in prompt["labels"].items())
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
@click.argument("name", shell_complete=completer("prompts"))
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


@command.command("archive")
@click.argument("name", shell_complete=completer("prompts"))
@click.option("--undo", is_flag=True, help="Unarchive it.")
@as_json
def archive(name: str, undo: bool, is_json: bool) -> None:
    """Archive the prompt NAME: it still serves requests, but is not listed and takes no changes."""
    with admin_client() as client:
        made = json_object(client.post(path_of(client, name), json={"archived": not undo}))
    print_done(made, is_json, f"{name} {'unarchived' if undo else 'archived'}")


@command.command("delete")
@click.argument("name", shell_complete=completer("prompts"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(name: str, yes: bool, is_json: bool) -> None:
    """Delete the prompt NAME with its versions. Requests that name it are refused from then on."""
    if not yes:
        click.confirm(f"Delete the prompt {name} and all its versions?", abort=True, err=True)
    with admin_client() as client:
        made = json_object(client.delete(path_of(client, name)))
    print_done(made, is_json, f"{name} deleted")


@command.command("render")
@click.argument("name", shell_complete=completer("prompts"))
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


def _echo_diff(text: str) -> None:
    """A unified diff in colour, where the output is a terminal."""
    for line in text.splitlines():
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(printable(line), fg=color, bold=line.startswith(("+++", "---")))
