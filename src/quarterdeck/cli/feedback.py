"""`quarterdeck feedback`: scores of requests."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, say, show
from quarterdeck.cli.suggestions import completer


@click.group("feedback", short_help="Score requests; list and delete scores.")
def command() -> None:
    """Score requests; list and delete scores."""


@command.command("create")
@click.argument("request_id", shell_complete=completer("requests"))
@click.option("--thumbs", type=click.Choice(["up", "down"]), help="A judgement of yes or no.")
@click.option("--value", type=float, help="A number.")
@click.option("--category", help="One of your own categories.")
@click.option("--comment", help="A text.")
@click.option("--name", help="What is scored. [feedback]")
@click.option("--user", help="Who scores.")
@as_json
def create(request_id: str, is_json: bool, **options: Any) -> None:
    """Score a request. The same request, name and user again replaces the score."""
    body = {"request_id": request_id} | {name: value for name, value in options.items() if value is not None}
    with admin_client() as client:
        found = json_object(client.post("/admin/scores", json=body))
    if is_json:
        print_json(found)
    else:
        show(found)


@command.command("list")
@click.option("--request", "request_id", help="Only of this request.")
@click.option("--team", help="Only of this team.")
@click.option("--name", help="Only of this name.")
@click.option("--user", help="Only of this user.")
@click.option("--source", type=click.Choice(["feedback", "api"]), help="Only from callers, or from the admin API.")
@as_json
def list_scores(is_json: bool, **options: str | None) -> None:
    """List scores, newest first."""
    with admin_client() as client:
        found = list(list_all(client, "/admin/scores", **options))
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        rows = [
            (
                each["id"],
                local_time(each["updated"]),
                each["request_id"],
                each["name"],
                _said(each),
                each["user"] or "-",
            )
            for each in found
        ]
        print_table(("SCORE", "UPDATED", "REQUEST", "NAME", "SCORE", "USER"), rows, ("UPDATED", "USER", "REQUEST"))
    else:
        say("no scores", is_note=True)


@command.command("delete")
@click.argument("score_id", shell_complete=completer("scores"))
@as_json
def delete(score_id: str, is_json: bool) -> None:
    """Delete a score, here and at the trace backend."""
    with admin_client() as client:
        done = json_object(client.delete(url_of("/admin/scores", score_id)))
    if is_json:
        print_json(done)
    else:
        click.echo(f"deleted {score_id}")


def _said(score: dict[str, Any]) -> str:
    value = score["thumbs"] or score["category"]
    if value is None and score["value"] is not None:
        value = f"{score['value']:g}"
    return " ".join(str(each) for each in (value, score["comment"]) if each)[:60] or "-"
