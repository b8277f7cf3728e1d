"""`quarterdeck usage`: requests, tokens and cost from the ledger, and where budgets will end."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click
import httpx

from quarterdeck.cli.budget_forecast import METHOD, forecast
from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.names import in_org, key_id, key_option, model_option, of_org, team_option
from quarterdeck.cli.output import as_json, csv_cell, print_json, print_table, say, terminal_width
from quarterdeck.cli.usage_table import COUNTS, GROUPS, rows_of, table

BUCKETS = {"hour": 3600, "day": 86_400}
MOST_BUDGETS = 5
"""Shown below a report unless all are asked for: those that will be used up first."""
_Time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command("usage", short_help="Show requests, tokens and cost.")
@click.option("--by", "groups", type=click.Choice(GROUPS), multiple=True, help="Group by this; repeatable. [key]")
@click.option("--bucket", type=click.Choice(list(BUCKETS)), help="Show usage over time.")
@click.option("--start", type=_Time, help="Start time, UTC. Default: first day of the month.")
@click.option("--end", type=_Time, help="End time (exclusive), UTC. Default: now.")
@key_option("Only this key.")
@team_option("Only this team.")
@model_option("--model", help_text="Only this model.")
@of_org
@click.option("--csv", "is_csv", is_flag=True, help="Print CSV: a line for each group and bucket, all digits.")
@click.option(
    "--forecast/--no-forecast",
    "wants_forecast",
    default=None,
    help="All budgets with a forecast, or none. [the first to be used up]",
)
@as_json
def command(is_json: bool, is_csv: bool, wants_forecast: bool | None, **options: Any) -> None:
    """Show requests, tokens and exact cost of a period, by key or another group.

    With --bucket, each row has a spark line of its cost (or requests) over time. The forecast of a budget is linear:
    what was spent so far, times the length of its period, divided by the time so far.
    """
    if is_json and is_csv:
        raise click.UsageError("--json and --csv exclude each other")
    with admin_client() as client:
        if options.get("key"):
            options["key"] = key_id(options["key"], client, options["org"], with_revoked=True)
        params, org = params_of(options), in_org(options["org"])
        found = json_object(client.get("/admin/usage", params=params))
        groups = params["group_by"]
        if is_json:
            if wants_forecast:
                found["budgets"] = forecasts(json_object(client.get("/admin/budgets", params=org)))
            print_json(found)
            return
        names = _key_names(client, {row["key"] for row in found["data"]}, options["org"]) if "key" in groups else {}
        if is_csv:
            click.echo(csv_text(found["data"], groups, names), nl=False)
            return
        _print_table(found, groups, names, options.get("bucket"))
        if wants_forecast:
            _print_forecasts(json_object(client.get("/admin/budgets", params=org)), None)
        elif wants_forecast is None and options.get("end") is None:
            try:
                _print_forecasts(json_object(client.get("/admin/budgets", params=org)), MOST_BUDGETS)
            except click.ClickException as error:  # Redis is away; the ledger's figures are shown all the same
                click.echo(f"no forecast: {error.message}", err=True)


def params_of(options: dict[str, Any]) -> dict[str, Any]:
    """The query of GET /admin/usage, without options that are not given."""
    params = {name: options.get(name) for name in ("bucket", "key", "team", "model", "org")}
    for name in ("start", "end"):
        if (time := options.get(name)) is not None:
            params[name] = int(time.replace(tzinfo=UTC).timestamp())
    given = {name: value for name, value in params.items() if value is not None}
    groups = list(dict.fromkeys(options.get("groups") or ("key",)))
    return {"group_by": groups, **given}


def csv_text(data: Sequence[Mapping[str, Any]], groups: Sequence[str], names: Mapping[str, str]) -> str:
    """All rows of the API with every digit; keys by id and by name, times as ISO 8601."""
    times = ["start", "end"] if data and data[0].get("start") is not None else []
    head = [column for group in groups for column in ((group, "key_name") if group == "key" else (group,))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, *times, *COUNTS])
    for row in data:
        values = {**row, "key_name": names.get(str(row.get("key")), "")}
        cells = ["" if values[name] is None else csv_cell(str(values[name])) for name in head]
        writer.writerow([*cells, *(_iso(row[name]) for name in times), *(row[name] for name in COUNTS)])
    return out.getvalue()


def forecasts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The budgets of GET /admin/budgets with `forecast` ($ at the end of the period) and `runs_out` (Unix seconds),
    those first that will be used up first."""
    made = []
    for each in found["data"]:
        spent, amount = Decimal(each["spent"]), Decimal(each["amount"])
        guess = None
        if each["period_start"] is not None and not each["is_counting"]:
            guess = forecast(spent, amount, each["period_start"], each["period_end"], found["as_of"])
        at_end = spent if guess is None else guess.at_end
        used_up = found["as_of"] if spent >= amount else None
        extra = {
            "forecast": None if guess is None else format(at_end, "f"),
            "runs_out": used_up if guess is None else guess.runs_out,
        }
        made.append((at_end / amount, {**each, **extra}))
    return [each for _, each in sorted(made, key=lambda pair: -pair[0])]


def _key_names(client: httpx.Client, ids: set[str], org: str | None) -> dict[str, str]:
    """The names of these keys, with the end of the id where two have the same name."""
    names: dict[str, str] = {}
    missing = {id for id in ids if id.startswith("key_")}
    if missing:
        for key in list_all(client, "/admin/keys", org=org):
            if key["id"] in missing:
                names[key["id"]] = key["name"]
                missing.discard(key["id"])
            if not missing:
                break
    count = Counter(names.values())
    return {id: name if count[name] == 1 else f"{name} (…{id[-4:]})" for id, name in names.items()}


def _print_table(found: Mapping[str, Any], groups: Sequence[str], names: Mapping[str, str], bucket: str | None) -> None:
    if not found["data"]:
        click.echo("no usage", err=True)
        return
    buckets: Sequence[int] = ()
    if bucket is not None:
        width = BUCKETS[bucket]
        buckets = range(found["start"] // width * width, found["end"], width)
    screen = terminal_width() if sys.stdout.isatty() else None
    text = table(rows_of(found["data"], groups), groups, names=names, buckets=buckets, width=screen)
    click.echo(text)


def _print_forecasts(found: Mapping[str, Any], most: int | None) -> None:
    budgets = forecasts(found)
    if not budgets:
        return
    shown = budgets[:most]
    rows = [
        (
            f"{each['scope']} {each['name']}",
            f"${each['amount']}/{each['period']}",
            f"${each['spent']}",
            _forecast_text(each),
            _end_text(each, found["as_of"]),
        )
        for each in shown
    ]
    click.echo()
    print_table(("BUDGET", "AMOUNT", "SPENT", "FORECAST", "USED UP"), rows, ("SPENT",))
    more = len(budgets) - len(shown)
    say(f"({METHOD}{f'; {more} more budgets: --forecast' if more else ''})")


def _forecast_text(budget: Mapping[str, Any]) -> str:
    if budget["is_counting"]:
        return "being counted"
    if budget["forecast"] is None:
        return "-" if budget["period_start"] is None else "too early"
    value = Decimal(budget["forecast"])
    return f"${value:.2f} ({value / Decimal(budget['amount']):.0%})"


def _end_text(budget: Mapping[str, Any], now: int) -> str:
    if budget["runs_out"] is None:
        return "-"
    return "now" if budget["runs_out"] <= now else _iso(budget["runs_out"])


def _iso(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
