"""Routes about the engine itself: models, adapters, health, metrics, and run-time changes for tests."""

from typing import Any

import msgspec
from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.config import VLLM_VERSION
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request, model_not_found, service_unavailable
from quarterdeck.simulator.faults import FOREVER, Faults
from quarterdeck.simulator.metrics import exposition
from quarterdeck.simulator.protocol.requests import LoadAdapterRequest, UnloadAdapterRequest, read

TEXT = b"text/plain; charset=utf-8"
METRICS = b"text/plain; version=1.0.0; charset=utf-8"

SMALL_BODY = 1 << 20


async def list_models(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """List the hosted models and the loaded adapters."""
    await connection.respond(encode({"object": "list", "data": cards(engine)}))


async def retrieve_model(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return one model or adapter, or vLLM's 404."""
    name = connection.path.removeprefix("/v1/models/")
    card = next((each for each in cards(engine) if each["id"] == name), None)
    if card is None:
        raise model_not_found(name)
    await connection.respond(encode(card))


def cards(engine: Engine) -> list[dict[str, Any]]:
    """Return the model objects: models first, then adapters with their base model as `parent`."""
    config = engine.config
    found = [
        _card(engine, name, config.model if name in config.names else name, None, config.max_model_len)
        for name in config.tasks
    ]
    found.extend(_card(engine, each.name, each.path, each.base, None) for each in engine.adapters.all())
    return found


def _card(engine: Engine, name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": engine.created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length,
        "permission": [],
    }


async def load_adapter(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Load an adapter, in place if the request says so. Answers in plain text, as vLLM does."""
    request = read(await connection.body(SMALL_BODY), LoadAdapterRequest)
    message = engine.adapters.load(request.lora_name, request.lora_path, inplace=request.load_inplace)
    await connection.respond(message.encode(), kind=TEXT)


async def unload_adapter(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Unload an adapter. Answers in plain text, as vLLM does."""
    request = read(await connection.body(SMALL_BODY), UnloadAdapterRequest)
    await connection.respond(engine.adapters.unload(request.lora_name).encode(), kind=TEXT)


async def health(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Answer 200, 503 while starting or with `health: fail`, and not at all with `health: hang`."""
    if engine.config.health == "hang":
        engine.faults.count("hang")
        connection.cancel_on_disconnect()
        await engine.clock.sleep(FOREVER)
    status = 503 if engine.config.health == "fail" or engine.state == "starting" else 200
    await connection.respond(b"", status=status)


async def ready(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Answer 200, or 503 while starting or draining."""
    if engine.state != "ready":
        raise service_unavailable(f"The engine is {engine.state}")
    await connection.respond(b"{}")


async def load(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return the number of requests in progress."""
    await connection.respond(encode({"server_load": engine.load}))


async def version(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return the version of vLLM that is simulated."""
    await connection.respond(encode({"version": VLLM_VERSION}))


async def metrics(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return vLLM's metrics in Prometheus' text format."""
    await connection.respond(exposition.render(engine), kind=METRICS)


async def list_endpoints(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """List this process as each model's only endpoint, in the engine door's format."""
    config = engine.config
    first = config.names[0]
    endpoints = [
        {
            "id": config.endpoint_id if config.endpoint_id and name == first else f"{name}#1",
            "model": name,
            "adapters": {each.name.partition("@")[0]: each.name for each in engine.adapters.all()}
            if name == first
            else {},
            "url": engine.url or f"http://{connection.header(b'host') or 'localhost'}",
            "state": engine.state,
            "max_running": config.max_num_seqs,
            "task": "embed" if task == "embed" else "generate",
            "detail": {"starting": "loading weights", "draining": "shutting down"}.get(engine.state, "simulated"),
        }
        for name, task in config.tasks.items()
        if name == first or name not in config.names
    ]
    await connection.respond(encode({"endpoints": endpoints}))


async def show_config(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return the configuration in force."""
    await connection.respond(encode(engine.config))


async def change_config(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Change settings while the engine runs, all or none."""
    values = read(await connection.body(SMALL_BODY), dict[str, Any])
    try:
        engine.change(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid_request(str(error)) from error
    await connection.respond(encode(engine.config))


class QueueFaults(msgspec.Struct, kw_only=True):
    """A fault for the next `count` requests."""

    fault: str
    count: int = 1


async def show_faults(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Return the queued faults and how often each kind was applied."""
    await connection.respond(encode(engine.faults.status()))


async def queue_faults(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Queue a fault for the next requests."""
    request = read(await connection.body(SMALL_BODY), QueueFaults)
    try:
        engine.faults.add(request.fault, request.count)
    except ValueError as error:
        raise invalid_request(str(error), "fault") from error
    await connection.respond(encode(engine.faults.status()))


async def clear_faults(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Drop the queued faults."""
    engine.faults.clear()
    await connection.respond(encode(engine.faults.status()))


async def reset_prefix_cache(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Empty the prefix cache, if there is one."""
    if engine.blocks is not None:
        engine.blocks.clear()
    await connection.respond(b"")
