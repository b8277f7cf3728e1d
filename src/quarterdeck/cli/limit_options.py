"""Command line options for limits and budgets, and the request fields made from them."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import click

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_tokens")


class Money(click.ParamType[str]):
    """Dollars, kept as text so that they stay exact."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            amount = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            amount = Decimal(0)
        if not amount.is_finite() or amount <= 0:
            self.fail(f"{value!r} is not an amount of money such as 10 or 0.50", param, ctx)
        return format(amount, "f")


def bounds(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for limits and a budget."""
    for option in reversed(
        (
            click.option("--requests-per-minute", type=click.IntRange(1), help="Requests per minute."),
            click.option(
                "--tokens-per-minute", type=click.IntRange(1), help="Prompt and completion tokens per minute."
            ),
            click.option("--concurrent-requests", type=click.IntRange(1), help="Requests in flight at once."),
            click.option("--max-tokens", type=click.IntRange(1), help="Maximum max_tokens of a request."),
            click.option("--budget", type=Money(), help="Budget per period, in dollars."),
            click.option(
                "--budget-period",
                type=click.Choice(["day", "week", "month", "total"]),
                help="Calendar period, UTC. [month]",
            ),
            click.option(
                "--on-exhausted", type=click.Choice(["deny", "warn"]), help="Action when the budget is spent. [deny]"
            ),
            click.option(
                "--content",
                type=click.Choice(["off", "hashed", "full", "unset"]),
                help="What is kept of inputs and outputs. [unset]",
            ),
        )
    ):
        command = option(command)
    return command


def removals(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that remove limits and a budget."""
    command = click.option("--no-budget", is_flag=True, help="Remove the budget.")(command)
    return click.option("--no-limits", is_flag=True, help="Remove all of its own limits.")(command)


def limit_fields(options: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request fields `limits`, `budget` and `content`: the options, merged into the object's current values."""
    body: dict[str, Any] = {}
    old = before or {}
    if content := options.get("content"):
        body["content"] = None if content == "unset" else content
    limits = {name: options[name] for name in LIMITS if options.get(name)}
    if options.get("no_limits") and not limits:
        body["limits"] = None
    elif limits:
        body["limits"] = limits if options.get("no_limits") else (old.get("limits") or {}) | limits
    names = {"amount": "budget", "period": "budget_period", "on_exhausted": "on_exhausted"}
    budget = {field: options[name] for field, name in names.items() if options.get(name)}
    if options.get("no_budget"):
        if budget:
            raise click.UsageError("--no-budget can't be combined with a budget")
        body["budget"] = None
    elif budget:
        body["budget"] = (old.get("budget") or {}) | budget
        if "amount" not in body["budget"]:
            raise click.UsageError("a budget requires an amount: --budget 10")
    return body
