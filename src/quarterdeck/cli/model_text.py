"""A model in words, for `models show`."""

from typing import Any

import click

from quarterdeck.cli.model_progress import state_text
from quarterdeck.cli.output import printable
from quarterdeck.weights.progress import size_text

_PLAIN = ("source", "revision", "task", "quantization", "dtype", "context", "folder", "log")


def show_model(model: dict[str, Any]) -> None:
    """Print it, a line per fact."""
    lines = model_lines(model)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name.ljust(width)}  {printable(value)}")


def memory_text(model: dict[str, Any]) -> str:
    """`20.1 GB on GPUs, 3.1 GB on the host`. Empty: it is not known."""
    host, gpus = model.get("memory_bytes"), model.get("gpu_memory_bytes")
    if gpus:
        return f"{size_text(gpus)} on GPUs" + (f", {size_text(host)} on the host" if host else "")
    if host:
        return size_text(host)
    return f"{size_text(needed)} needed" if (needed := model.get("needed_bytes")) else ""


def model_lines(model: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known, in the order in which a person asks."""
    state = str(model.get("state", ""))
    words = state_text(model)
    lines = [("model", str(model["id"])), ("state", state if words == state or not words else f"{state}: {words}")]
    lines += [("aliases", ", ".join(model["aliases"]))] if model.get("aliases") else []
    lines += [(name, str(model[name])) for name in _PLAIN if model.get(name) is not None]
    if model.get("endpoints"):
        lines.append(("endpoints", ", ".join(model["endpoints"])))
    if model.get("replicas") is not None:
        most = model.get("max_replicas")
        lines.append(("replicas", f"{model['replicas']}" + (f" of at most {most}" if most else "")))
    if memory := memory_text(model):
        lines.append(("memory", memory))
    if tokens := model.get("kv_cache_tokens"):
        used = model.get("kv_cache_usage")
        lines.append(("kv cache", f"{tokens:,} tokens" + (f", {used:.0%} used" if used is not None else "")))
    if model.get("requests_running") is not None:
        lines.append(("requests", f"{model['requests_running']} running, {model['requests_waiting']} waiting"))
    if speed := model.get("tokens_per_second"):
        lines.append(("speed", f"{speed:g} tokens/s of one answer, on average"))
    for adapter in model.get("adapters") or ():
        lines.append(("adapter", f"{adapter['id']} ({adapter['source']})"))
    lines.append(("managed by", "quarterdeck.yaml" if model.get("managed_by") == "config" else "quarterdeck models"))
    return lines
