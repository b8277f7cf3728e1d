"""Limits and budgets on a command line: the options that say them, and how they are shown."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_tokens")
_SHORT = ("requests/min", "tokens/min", "at once", "tokens each")

as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON, as the admin API answers it.")


class Money(click.ParamType[str]):
    """Dollars, kept as they were written: exact."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            amount = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            amount = Decimal(0)
        if not amount.is_finite() or amount <= 0:
            self.fail(f"{value!r} is no amount of money: write 10 or 0.50", param, ctx)
        return format(amount, "f")


def bounds(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say limits and a budget."""
    for option in reversed(
        (
            click.option("--requests-per-minute", type=click.IntRange(1)),
            click.option("--tokens-per-minute", type=click.IntRange(1), help="Prompt and answer."),
            click.option("--concurrent-requests", type=click.IntRange(1)),
            click.option("--max-tokens", type=click.IntRange(1), help="The largest max_tokens of one request."),
            click.option("--budget", type=Money(), help="Money it may spend in a period, in dollars."),
            click.option("--budget-period", type=click.Choice(["day", "week", "month", "total"]), help="UTC. [month]"),
            click.option(
                "--on-exhausted", type=click.Choice(["deny", "warn"]), help="What a spent budget does. [deny]"
            ),
        )
    ):
        command = option(command)
    return command


def removals(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that take limits and a budget away."""
    command = click.option("--no-budget", is_flag=True, help="Take its budget away.")(command)
    return click.option("--no-limits", is_flag=True, help="Take all limits of its own away.")(command)


def asked(options: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """`limits` and `budget` of a request's body: what was said, on top of what was there before."""
    body: dict[str, Any] = {}
    old = before or {}
    limits = {name: options[name] for name in LIMITS if options.get(name)}
    if options.get("no_limits") and not limits:
        body["limits"] = None
    elif limits:
        body["limits"] = limits if options.get("no_limits") else (old.get("limits") or {}) | limits
    words = {"amount": "budget", "period": "budget_period", "on_exhausted": "on_exhausted"}
    budget = {field: options[name] for field, name in words.items() if options.get(name)}
    if options.get("no_budget"):
        if budget:
            raise click.UsageError("--no-budget and a budget exclude one another")
        body["budget"] = None
    elif budget:
        body["budget"] = (old.get("budget") or {}) | budget
        if "amount" not in body["budget"]:
            raise click.UsageError("a budget needs its amount: --budget 10")
    return body


def limits_text(limits: dict[str, int] | None) -> str:
    if not limits:
        return "-"
    return ", ".join(f"{limits[name]} {words}" for name, words in zip(LIMITS, _SHORT, strict=True) if name in limits)


def budget_text(budget: dict[str, str] | None) -> str:
    if not budget:
        return "-"
    period = "in total" if budget["period"] == "total" else f"a {budget['period']}"
    return f"${budget['amount']} {period}" + (", warns" if budget["on_exhausted"] == "warn" else "")


def status_text(status: dict[str, Any]) -> str:
    words = ", ".join(f"${status[name]} {name}" for name in ("spent", "held", "left"))
    if status["period_start"] is not None:  # periods are UTC's
        words += datetime.fromtimestamp(status["period_start"], UTC).strftime(", since %Y-%m-%d UTC")
    return words + (", what was spent before is still to be counted" if status["is_counting"] else "")


def day(unix: float | None) -> str:
    return "-" if unix is None else datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")


def show(found: dict[str, Any]) -> None:
    """An object, a line a field."""
    shown = {
        name: _words(name, value)
        for name, value in found.items()
        if name not in ("object", "key") and value not in (None, [], {})
    }
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {value}")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _words(name: str, value: Any) -> str:
    if name == "limits":
        return limits_text(value)
    if name == "budget":
        return budget_text(value)
    if name == "budget_status":
        return status_text(value)
    if name in ("created", "expires", "revoked"):
        return day(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
