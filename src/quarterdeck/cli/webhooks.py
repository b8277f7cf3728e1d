"""`quarterdeck webhooks`: endpoints to which events are posted, and their deliveries."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, printable, say, show
from quarterdeck.cli.suggestions import completer

_events = click.option("--event", "event_types", multiple=True, help="Only this type of event; repeatable. [all]")


@click.group("webhooks", short_help="Send events, such as budget alerts, to URLs.")
def command() -> None:
    """Send events, such as budget alerts, to URLs."""


@command.command("create")
@click.argument("url")
@click.option("--name", help="Shown in lists.")
@_events
@as_json
def create(url: str, name: str | None, event_types: tuple[str, ...], is_json: bool) -> None:
    """Post events to URL. The signing secret is printed now and never again."""
    body = {"url": url, "name": name, "event_types": list(event_types)}
    with admin_client() as client:
        made = json_object(client.post("/admin/webhooks", json={key: value for key, value in body.items() if value}))
    _show_secret(made, is_json)


@command.command("list")
@as_json
def list_webhooks(is_json: bool) -> None:
    """List endpoints, newest first."""
    with admin_client() as client:
        found = list(list_all(client, "/admin/webhooks"))
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        rows = [(each["id"], each["name"], _state(each), _types(each), each["url"]) for each in found]
        print_table(("WEBHOOK", "NAME", "STATE", "EVENTS", "URL"), rows, ("EVENTS", "NAME"))
    else:
        say("no webhooks", is_note=True)


@command.command("show")
@click.argument("webhook_id", shell_complete=completer("webhooks"))
@as_json
def show_webhook(webhook_id: str, is_json: bool) -> None:
    """Show an endpoint and its last deliveries."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/admin/webhooks", webhook_id)))
        deliveries = json_object(client.get(f"{url_of('/admin/webhooks', webhook_id)}/deliveries"))["data"]
    if is_json:
        print_json({**found, "deliveries": deliveries})
        return
    show(found)
    if deliveries:
        rows = [
            (local_time(each["created_at"]), each["event_type"], each["status"], str(each["attempts"]), _why(each))
            for each in deliveries
        ]
        click.echo()
        print_table(("CREATED", "EVENT", "STATUS", "ATTEMPTS", "LAST RESPONSE"), rows, ("ATTEMPTS", "CREATED"))


@command.command("update")
@click.argument("webhook_id", shell_complete=completer("webhooks"))
@click.option("--url", help="Where events are posted to.")
@click.option("--name", help="Shown in lists.")
@_events
@click.option("--all-events", is_flag=True, help="All types of events.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether events are sent.")
@as_json
def update(webhook_id: str, is_json: bool, event_types: tuple[str, ...], all_events: bool, **options: Any) -> None:
    """Change, enable or disable an endpoint. Values that are not given stay."""
    body = {name: value for name, value in options.items() if value is not None}
    if event_types or all_events:
        body["event_types"] = None if all_events else list(event_types)
    if not body:
        raise click.UsageError("nothing to update: see `quarterdeck webhooks update --help`")
    with admin_client() as client:
        found = json_object(client.post(url_of("/admin/webhooks", webhook_id), json=body))
    (print_json if is_json else show)(found)


@command.command("rotate")
@click.argument("webhook_id", shell_complete=completer("webhooks"))
@click.option("--keep-old", is_flag=True, help="Sign with the old secret as well for 24 hours.")
@as_json
def rotate(webhook_id: str, keep_old: bool, is_json: bool) -> None:
    """Replace the signing secret. The new one is printed now and never again."""
    body = {"keep_old_secret_active_for_24_hours": keep_old}
    with admin_client() as client:
        found = json_object(client.post(f"{url_of('/admin/webhooks', webhook_id)}/rotate_secret", json=body))
    _show_secret(found, is_json)


@command.command("test")
@click.argument("webhook_id", shell_complete=completer("webhooks"))
@as_json
def send_test(webhook_id: str, is_json: bool) -> None:
    """Post a test event and tell how it went. Exits with 1 if it was not delivered."""
    with admin_client() as client:
        found = json_object(client.post(f"{url_of('/admin/webhooks', webhook_id)}/test", json={}))
    if is_json:
        print_json(found)
    elif found["success"]:
        click.echo(f"delivered: HTTP {found['status_code']}")
    elif found["status"] == "pending":
        click.echo("not delivered yet: is the worker running?", err=True)
    else:
        click.echo(f"not delivered: {printable(found['error'] or 'unknown')}", err=True)
    if not found["success"]:
        raise SystemExit(1)


@command.command("delete")
@click.argument("webhook_id", shell_complete=completer("webhooks"))
@as_json
def delete(webhook_id: str, is_json: bool) -> None:
    """Delete an endpoint. What waits for it is not sent."""
    with admin_client() as client:
        done = json_object(client.delete(url_of("/admin/webhooks", webhook_id)))
    if is_json:
        print_json(done)
    else:
        click.echo(f"deleted {webhook_id}")


def _show_secret(found: dict[str, Any], is_json: bool) -> None:
    if is_json:
        print_json(found)
        return
    click.echo(f"webhook {printable(found['id'])}; its signing secret, shown only once:", err=True)
    click.echo(printable(found["signing_secret"]))


def _state(endpoint: dict[str, Any]) -> str:
    return "enabled" if endpoint["enabled"] else endpoint["disabled_reason"] or "disabled"


def _types(endpoint: dict[str, Any]) -> str:
    return "all" if endpoint["all_event_types"] else ",".join(endpoint["event_types"])


def _why(delivery: dict[str, Any]) -> str:
    return delivery["error"] or (f"HTTP {delivery['status_code']}" if delivery["status_code"] else "-")
