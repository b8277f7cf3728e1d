"""`quarterdeck prompts sync`: prompts that are synchronised with Langfuse, and decisions on their conflicts."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, printable, show
from quarterdeck.cli.suggestions import completer

PATH = "/admin/prompt_links"


@click.command("sync")
@click.argument("name", required=False, shell_complete=completer("prompts"))
@click.option("--keep", type=click.Choice(["ours", "theirs"]), help="Side that wins NAME's conflicts.")
@click.option("--conflicts", "only_conflicts", is_flag=True, help="List only prompts with conflicts.")
@as_json
def command(name: str | None, keep: str | None, only_conflicts: bool, is_json: bool) -> None:
    """Show which prompts are synchronised with Langfuse, or the state of the prompt NAME.

    With --keep, the worker resolves NAME's conflicts within seconds: `ours` keeps this platform's versions and labels,
    `theirs` Langfuse's. Of a prompt that was deleted on one side, keeping that side ends the synchronisation, and
    keeping the other creates it again.
    """
    if name is None and keep is not None:
        raise click.UsageError("--keep needs the NAME of a prompt")
    with admin_client() as client:
        if name is None:
            found = list(list_all(client, PATH))
        else:
            links = json_object(client.get(PATH, params={"name": name, "limit": 100}))["data"]
            if not links:
                raise click.ClickException(
                    f"The prompt '{name}' is not synchronised with Langfuse (setting langfuse.prompts)."
                )
            # The latest project of several: an earlier one is no longer the environment's.
            path = f"{PATH}/{max(links, key=lambda each: each['checked'] or 0)['id']}"
            response = client.get(path) if keep is None else client.post(path, json={"keep": keep})
            found = [json_object(response)]
    if only_conflicts:
        found = [link for link in found if link["conflicts"]]
    if is_json:
        print_json(found[0] if name is not None and found else found)
    elif name is None:
        _list(found)
    else:
        _show(found, keep)


def _list(links: list[dict[str, Any]]) -> None:
    rows = []
    for link in links:
        why = "; ".join([*(each["message"] for each in link["conflicts"]), *link["notes"]]) or "-"
        checked = local_time(link["checked"]) if link["checked"] else "-"
        rows.append((link["name"], link["state"], link["origin"] or "-", checked, why))
    print_table(("NAME", "STATE", "ORIGIN", "CHECKED", "WHY"), rows, ("CHECKED", "ORIGIN"))


def _show(links: list[dict[str, Any]], keep: str | None) -> None:
    for link in links:
        shown = {key: value for key, value in link.items() if key not in ("conflicts", "notes", "versions", "object")}
        labels = ", ".join(f"{label}={number}" for label, number in link["labels"].items())
        pairs = ", ".join(f"{each['ours']}={each['theirs']}" for each in link["versions"])
        show({**shown, "labels": labels, "versions (here=Langfuse)": pairs})
        for conflict in link["conflicts"]:
            click.echo(printable(f"conflict: {conflict['message']}"))
        for note in link["notes"]:
            click.echo(printable(f"note: {note}"))
        if keep is not None:
            click.echo(f"keeping {keep}: the worker carries it out within seconds")
