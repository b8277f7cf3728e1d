"""`quarterdeck requests`: the request log of the running platform."""

import errno
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click
import httpx

from quarterdeck.cli.client import admin_client, gateway_client, json_object, url_of, user_credentials
from quarterdeck.cli.names import key_id
from quarterdeck.cli.output import (
    answer_text,
    as_json,
    local_time,
    print_json,
    print_table,
    printable,
    printable_json,
    say,
    terminal_width,
)
from quarterdeck.cli.request_table import HEAD, OPTIONAL, export_parquet, live_lines, rows_of
from quarterdeck.cli.suggestions import completer

FILTERS = (
    *("key", "team", "model", "route", "prompt", "prompt_version", "operation", "status", "error_code", "user"),
    *("session", "tag", "text", "cache"),
)
TAIL_FILTERS = ("key", "team", "model", "route", "status", "error_code", "user", "session", "operation")
RETRY_SECONDS = 1.0
_Time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.group("requests", short_help="Search, show, follow and export requests.")
def command() -> None:
    """Search, show, follow and export requests; delete their inputs and outputs."""


def filters(names: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each filter."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--failed/--ok", default=None, help="Only failed, or only successful requests.")(
            function
        )
        for name in reversed(names):
            help_text = {
                "text": "Only with this text in the stored input or output.",
                "tag": "Only with this tag.",
                "status": "Only ok, error, cancelled or lost.",
                "cache": "Only with this use of the response cache: hit, miss, bypass or off.",
            }
            function = click.option(
                f"--{name.replace('_', '-')}",
                help=help_text.get(name, f"Only this {name.replace('_', ' ')}."),
                shell_complete=completer(f"{name}s") if name in ("key", "team", "model", "prompt") else None,
            )(function)
        return function

    return add


def bounds(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for times, costs and latencies."""
    for option in reversed(
        (
            click.option("--start", type=_Time, help="Start time, UTC."),
            click.option("--end", type=_Time, help="End time (exclusive), UTC."),
            click.option("--min-cost", help="At least this many dollars."),
            click.option("--max-cost", help="At most this many dollars."),
            click.option("--min-latency", type=float, help="At least this many seconds."),
            click.option("--max-latency", type=float, help="At most this many seconds."),
        )
    ):
        function = option(function)
    return function


@command.command("list")
@filters(FILTERS)
@bounds
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Number of requests.")
@as_json
def list_requests(is_json: bool, limit: int, **options: Any) -> None:
    """List requests, newest first."""
    with admin_client() as client:
        found = list(pages(client, params_of(with_key_id(client, options)), limit))
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        print_table(HEAD, rows_of(found), OPTIONAL)
    else:
        say("no requests", is_note=True)


@command.command("show")
@click.argument("request_id", shell_complete=completer("requests"))
@as_json
def show_request(request_id: str, is_json: bool) -> None:
    """Show one request with its attempts, input and output."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/admin/requests", request_id)))
    if is_json:
        print_json(found)
        return
    for name, value in found.items():
        if name in ("object", "input", "output", "attempts", "created", "content_details", "scores") or value in (
            None,
            [],
            {},
            "",
        ):
            continue
        shown = local_time(value) if name in ("started", "ended") else _text(value)
        click.echo(f"{name.ljust(20)}{printable(shown)}")
    for number, attempt in enumerate(found["attempts"], 1):
        seconds = attempt["ended"] - attempt["started"]
        outcome = printable(str(attempt.get("error") or attempt.get("status") or "no answer"))
        click.echo(f"{f'attempt {number}'.ljust(20)}{printable(attempt['endpoint'])}  {seconds:.3f} s  {outcome}")
    for score in found.get("scores", ()):
        said = [score[name] for name in ("thumbs", "value", "category", "comment") if score[name] is not None]
        click.echo(f"{'score'.ljust(20)}{printable(score['name'])}  {printable('  '.join(map(str, said)))}")
    _show_content(found)


def _show_content(found: dict[str, Any]) -> None:
    details = found["content_details"]
    if details is None:
        click.echo("no content is stored" if found["content"] == "off" else "its content is not stored (any more)")
        return
    for side in ("input", "output"):
        cut = ", cut" if details[f"{side}_cut"] else ""
        digest = details[f"{side}_sha256"]
        click.echo(
            f"\n{side} ({details[f'{side}_bytes']} bytes{cut})" + (f"  sha256 {printable(digest)}" if digest else "")
        )
        if found[side] is not None:
            click.echo(answer_text(json.dumps(found[side], indent=2, ensure_ascii=False)))
    if details["redacted"]:
        click.echo(
            "\nredacted: " + ", ".join(f"{printable(name)} {count}" for name, count in details["redacted"].items())
        )


@command.command("tail")
@filters(TAIL_FILTERS)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line.")
def tail(is_json: bool, **options: Any) -> None:
    """Follow requests as they end. Reconnects after an interruption; ends with Ctrl-C."""
    user = user_credentials()
    with admin_client() as client:
        options = with_key_id(client, options)
    params = {name: value for name, value in options.items() if value is not None and name != "failed"}
    if options.get("failed") is not None:
        params["failed"] = str(options["failed"]).lower()
    last: str | None = None
    head, is_waiting = False, False
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with (
                gateway_client(user.gateway_url, user.admin_key) as client,
                client.stream("GET", "/admin/requests/tail", params=params, headers=headers) as response,
            ):
                if response.is_error:
                    if response.status_code < 500 and response.status_code != 429:
                        json_object(response)
                    raise click.ClickException(f"status {response.status_code}")
                is_waiting = False
                for event_id, kind, data in events(response.iter_lines()):
                    if kind == "gap":
                        click.echo("-- some requests are missing here: the connection was lost for too long", err=True)
                        continue
                    last = event_id or last
                    if (failure := _failure(data)) is not None:
                        raise failure
                    if is_json:
                        click.echo(printable_json(data))
                    else:
                        lines = live_lines(json.loads(data), terminal_width() if sys.stdout.isatty() else None)
                        click.echo("\n".join(lines if not head else lines[1:]))
                        head = True
                    sys.stdout.flush()
        except click.ClickException as error:
            if _is_final(error):
                raise
            if not is_waiting:
                click.echo(f"-- {error.message}; reconnecting", err=True)
            is_waiting = True
        time.sleep(RETRY_SECONDS)


def _failure(data: str) -> click.ClickException | None:
    """The error that ends a stream. None: the event is a request."""
    found = json.loads(data).get("error")
    if not isinstance(found, dict):
        return None
    is_refused = found.get("type") in ("authentication_error", "permission_error")
    return click.ClickException(f"{printable(found['message'])}{' (status 401)' if is_refused else ''}")


def _is_final(error: click.ClickException) -> bool:
    """Whether a repetition would fail as well: the key, the filter."""
    return any(f"(status {code})" in error.message for code in (400, 401, 403, 404))


def events(lines: Iterator[str]) -> Iterator[tuple[str | None, str, str]]:
    """The events of a stream: id, type and data."""
    event_id, kind, data = None, "message", ""
    for line in lines:
        if not line:
            if data:
                yield event_id, kind, data
            event_id, kind, data = None, "message", ""
            continue
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data = value


@command.command("export")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@filters(FILTERS)
@bounds
@click.option("--content", is_flag=True, help="With inputs and outputs, where they are stored.")
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), help="Default: by the file's name.")
def export(path: Path, kind: str | None, content: bool, **options: Any) -> None:
    """Write matching requests to a JSONL or Parquet file; `-` is standard output (JSONL)."""
    kind = kind or ("parquet" if path.suffix == ".parquet" else "jsonl")
    with admin_client() as client:
        params = params_of(with_key_id(client, options)) | ({"content": "true"} if content else {})
        try:
            count = _write(pages(client, params, None), path, kind)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `… export - | head`: click ends the command
                raise
            raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None
    click.echo(f"exported {count} requests", err=True)


def _write(found: Iterator[dict[str, Any]], path: Path, kind: str) -> int:
    """How many were written. Raises OSError."""
    if kind == "parquet":
        return export_parquet(path, found)
    if str(path) == "-":
        return _write_lines(found, sys.stdout)
    with path.open("w", encoding="utf-8") as file:
        return _write_lines(found, file)


def _write_lines(found: Iterator[dict[str, Any]], file: TextIO) -> int:
    count = 0
    for each in found:
        file.write(printable_json(json.dumps(each, ensure_ascii=False)) + "\n")
        count += 1
    return count


@command.command("delete-contents")
@click.option("--request", help="The content of this request.")
@click.option("--user", help="The contents of this user's requests.")
@click.option("--session", help="The contents of this session's requests.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete_contents(is_json: bool, yes: bool, **options: str | None) -> None:
    """Delete the inputs and outputs of a request, a user or a session. Records and sums stay."""
    given = {name: value for name, value in options.items() if value}
    if len(given) != 1:
        raise click.UsageError("give exactly one of --request, --user and --session")
    ((by, value),) = given.items()
    if not yes:
        click.confirm(f"Delete the inputs and outputs of {by} {printable(value or '')!r}?", abort=True, err=True)
    with admin_client() as client:
        found = json_object(client.delete("/admin/contents", params=given))
    if is_json:
        print_json(found)
    else:
        click.echo(f"deleted {found['deleted']} contents")


def pages(client: httpx.Client, params: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    """Requests of as many pages as needed. A page may be short, or empty, although there are more (`text`)."""
    after: dict[str, str] = {}
    left = limit
    while True:
        size = 100 if left is None else min(100, left)
        page = json_object(client.get("/admin/requests", params={**params, "limit": size, **after}))
        yield from page["data"]
        if left is not None:
            left -= len(page["data"])
        if not page["has_more"] or left == 0 or page["last_id"] is None:
            return
        after = {"after": page["last_id"]}


def with_key_id(client: httpx.Client, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the key's id in place of its name. Raises ClickException."""
    return {**options, "key": key_id(options["key"], client, with_revoked=True)} if options.get("key") else options


def params_of(options: dict[str, Any]) -> dict[str, Any]:
    """The query of GET /admin/requests, without options that are not given."""
    params: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, datetime):
            params[name] = int(value.replace(tzinfo=UTC).timestamp())
        elif isinstance(value, bool):
            params[name] = str(value).lower()
        else:
            params[name] = value
    return params


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
