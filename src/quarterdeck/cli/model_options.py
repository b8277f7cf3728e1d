"""The options of `models add` and `models update`."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

SERVED = (
    *("audio.transcriptions", "audio.translations", "audio.speech"),
    *("images.generations", "images.edits", "images.variations"),
)
F = TypeVar("F", bound=Callable[..., Any])


def model_options(function: F) -> F:
    """The settings of a model's engine."""
    for option in reversed(
        (
            click.option("--revision", help="Branch, tag or commit of the repository. [main]"),
            click.option("--alias", "aliases", multiple=True, help="Another name of the model; repeatable."),
            click.option(
                "--serves",
                type=click.Choice(SERVED),
                multiple=True,
                help="An audio or image operation that it serves; repeatable.",
            ),
            click.option("--task", type=click.Choice(["generate", "embed"]), help="What it serves. [generate]"),
            click.option(
                "--quantization",
                type=click.Choice(["none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]),
                help="Quantization of its weights. bitsandbytes: 4 bits. [none]",
            ),
            click.option(
                "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Number type. [auto]"
            ),
            click.option(
                "--context", type=click.IntRange(min=16), help="Tokens of prompt and answer. [the model's own limit]"
            ),
            click.option("--max-adapters", type=click.IntRange(0, 256), help="LoRA adapters in one batch. [0]"),
            click.option("--tensor-parallel", type=click.IntRange(min=1), help="GPUs of one replica. [1]"),
            click.option("--accelerator", help="auto, cpu, gpu or a GPU type. [auto]"),
            click.option("--tool-parser", help="vLLM's tool call parser, such as hermes."),
            click.option("--kv-cache-gib", type=float, help="GiB of the KV cache on a CPU."),
            click.option(
                "--arg",
                "args",
                multiple=True,
                metavar="NAME=VALUE",
                help="An argument of vLLM's engine, such as gpu_memory_utilization=0.5; repeatable.",
            ),
        )
    ):
        function = option(function)
    return function


def given_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the admin API that the options name. Raises UsageError."""
    found = {name: value for name, value in options.items() if value is not None and value != ()}
    for name in ("aliases", "serves"):
        if name in found:
            found[name] = list(found[name])
    if "args" in found:
        found["args"] = dict(map(_argument, found["args"]))
    return found


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--arg must be NAME=VALUE, not '{text}'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
