"""`quarterdeck prompts label | split | rollback | events | compare`: which version serves, and how it does."""

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, printable
from quarterdeck.cli.prompt_client import path_of
from quarterdeck.cli.suggestions import completer


@click.command("label")
@click.argument("name", shell_complete=completer("prompts"))
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
    print_done(
        made, is_json, f"label {label} of {name} deleted" if is_deleted else f"{label} of {name}: version {version}"
    )


@click.command("split")
@click.argument("name", shell_complete=completer("prompts"))
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
    print_done(made, is_json, f"{label} of {name}: {target_text(made)}")


@click.command("rollback")
@click.argument("name", shell_complete=completer("prompts"))
@click.argument("label")
@click.option("--to", "version", type=click.IntRange(1), help="Version to go back to. [the one before]")
@click.option("--reason", default="", help="Recorded in the prompt's events.")
@as_json
def rollback(name: str, label: str, version: int | None, reason: str, is_json: bool) -> None:
    """Point LABEL of the prompt NAME at the version that it pointed at before."""
    with admin_client() as client:
        path = f"{path_of(client, name)}/labels/{quote(label, safe='')}/rollback"
        made = json_object(client.post(path, json={"version": version, "reason": reason}))
    print_done(made, is_json, f"{label} of {name}: version {made['version']}")


@click.command("events")
@click.argument("name", shell_complete=completer("prompts"))
@as_json
def events(name: str, is_json: bool) -> None:
    """Show the changes of the prompt NAME, newest first: what, by whom and why."""
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


@click.command("compare")
@click.argument("name", shell_complete=completer("prompts"))
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


COMMANDS = (label_version, split, rollback, events, compare)


def print_done(made: dict[str, Any], is_json: bool, text: str) -> None:
    """What a change made, or a line about it."""
    if is_json:
        print_json(made)
    else:
        click.echo(text)


def target_text(target: dict[str, Any]) -> str:
    """The version that a label points at, or its shares: `3:90/4:10`."""
    if "split" not in target:
        return str(target["version"])
    shares = "/".join(f"{each['version']}:{each['weight']:g}" for each in target["split"])
    return shares + (" guarded" if target.get("guard") else "")


def _after(event: dict[str, Any]) -> str:
    after = event["after"] or {}
    if "version" in after or "split" in after:
        return target_text(
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
