"""The ASGI application: the route table, the faults that act before a response, and error responses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from quarterdeck.net.asgi import Receive, Scope, Send
from quarterdeck.simulator import errors
from quarterdeck.simulator.client_connection import ClientConnection, ClientDisconnected
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import VLLMError
from quarterdeck.simulator.faults import Faults, error_response
from quarterdeck.simulator.options import IGNORED, from_mapping, list_options
from quarterdeck.simulator.routes import audio, chat, completions, embeddings, images, management, tokenization

Handler = Callable[[ClientConnection, Engine, Faults], Awaitable[None]]

GENERATE: dict[str, Handler] = {
    "/v1/chat/completions": chat.create_chat_completion,
    "/v1/completions": completions.create_completion,
}
EMBED: dict[str, Handler] = {
    "/v1/embeddings": embeddings.create_embedding,
    "/v1/score": embeddings.create_score,
    "/score": embeddings.create_score,
    "/classify": embeddings.create_classification,
    "/rerank": embeddings.create_rerank,
    "/v1/rerank": embeddings.create_rerank,
    "/v2/rerank": embeddings.create_rerank,
}
MEDIA: dict[str, Handler] = {
    "/v1/audio/transcriptions": audio.create_transcription,
    "/v1/audio/translations": audio.create_transcription,
    "/v1/audio/speech": audio.create_speech,
    "/v1/images/generations": images.create_image,
    "/v1/images/edits": images.edit_image,
    "/v1/images/variations": images.edit_image,
}
TOKENS: dict[str, Handler] = {"/tokenize": tokenization.tokenize, "/detokenize": tokenization.detokenize}

MANAGEMENT: dict[str, dict[str, Handler]] = {
    "/v1/models": {"GET": management.list_models},
    "/v1/load_lora_adapter": {"POST": management.load_adapter},
    "/v1/unload_lora_adapter": {"POST": management.unload_adapter},
    "/health": {"GET": management.health},
    "/health/ready": {"GET": management.ready},
    "/ping": {"GET": management.health},
    "/metrics": {"GET": management.metrics},
    "/load": {"GET": management.load},
    "/version": {"GET": management.version},
    "/endpoints": {"GET": management.list_endpoints},
    "/reset_prefix_cache": {"POST": management.reset_prefix_cache},
    "/admin/config": {"GET": management.show_config, "POST": management.change_config},
    "/admin/faults": {
        "GET": management.show_faults,
        "POST": management.queue_faults,
        "DELETE": management.clear_faults,
    },
}


def create_app(config: SimulatorConfig | None = None) -> "App":
    """Build a simulated engine as an ASGI app, for tests in process. Raises ValueError for conflicting options."""
    return App(Engine(config or SimulatorConfig()))


def create_app_from_options(options: Mapping[str, Any]) -> "App":
    """Build it from options by name, as a command line has them: one value is a list of one, and options of vLLM that
    mean nothing here are ignored. Raises ValueError."""
    lists = list_options()
    known: dict[str, Any] = {}
    for given, value in options.items():
        name = given.replace("_", "-")
        if name not in IGNORED:
            known[name] = [value] if name in lists and not isinstance(value, list | tuple) else value
    return create_app(from_mapping(known))


class App:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        tasks = set(engine.config.tasks.values())
        self._compute = {
            **(GENERATE if tasks & {"generate", "any"} else {}),
            **(EMBED if tasks & {"embed", "any"} else {}),
            **(MEDIA if tasks & {"media", "any"} else {}),
            **TOKENS,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        connection = ClientConnection(scope, receive, send)
        try:
            await self._serve(connection)
        except VLLMError as error:
            if not connection.is_started:
                await connection.respond(error.body(), status=error.status, headers=error.headers)
        except ClientDisconnected:
            self._count_disconnect()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.is_disconnected or task is None:
                raise
            task.uncancel()
            self._count_disconnect()
        finally:
            connection.close()

    async def _serve(self, connection: ClientConnection) -> None:
        if self.engine.config.enable_request_id_headers and (given := connection.header(b"x-request-id")):
            connection.extra_headers.append((b"x-request-id", given.encode("latin-1")))
        handler = self._compute.get(connection.path)
        if handler is not None:
            if connection.method != "POST":
                raise errors.method_not_allowed("POST")
            await self._run(connection, handler)
            return
        routes = MANAGEMENT.get(connection.path)
        if routes is None and connection.path.startswith("/v1/models/"):
            routes = {"GET": management.retrieve_model}
        if routes is None:
            raise errors.route_not_found()
        managed = routes.get(connection.method)
        if managed is None:
            raise errors.method_not_allowed(", ".join(routes))
        await managed(connection, self.engine, {})

    async def _run(self, connection: ClientConnection, handler: Handler) -> None:
        """Run a route that computes, with the request's faults. 503 while the engine is starting or draining."""
        engine = self.engine
        if engine.state != "ready":
            raise errors.service_unavailable(f"The engine is {engine.state}")
        try:
            faults = engine.faults.draw(connection.header(b"x-fault"), engine.config)
        except ValueError as error:
            raise errors.invalid_request(str(error), "x-fault") from error
        engine.load += 1
        try:
            if faults:
                await self._before_response(connection, faults)
                if connection.is_ended:
                    return
            await handler(connection, engine, faults)
        finally:
            engine.load -= 1

    async def _before_response(self, connection: ClientConnection, faults: Faults) -> None:
        """Apply the faults that act before the response. Raises VLLMError."""
        engine = self.engine
        if fault := faults.get("slow"):
            engine.faults.count("slow")
            await connection.body(engine.config.max_request_body_size_mb << 20)
            connection.cancel_on_disconnect()
            await engine.clock.sleep(1.0 if fault.value is None else fault.value)
        if fault := faults.get("refused"):
            engine.faults.count("refused")
            if fault.value is not None and engine.listener is not None:
                engine.listener.refuse(fault.value)
            await connection.cut()
            return
        for kind in ("wrong-usage", "no-usage", "negative-usage"):
            if kind in faults:
                engine.faults.count(kind)
        error = error_response(faults, engine.config.max_model_len)
        if error is not None:
            engine.faults.count(str(error.status))
            raise error

    def _count_disconnect(self) -> None:
        self.engine.metrics.count("quarterdeck_simulator_client_disconnects")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
