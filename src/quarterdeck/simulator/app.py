"""The ASGI application: the route table, the faults that come before an answer, the errors."""

import asyncio
from collections.abc import Awaitable, Callable

from quarterdeck.net.asgi import Receive, Scope, Send
from quarterdeck.simulator import errors as refusals
from quarterdeck.simulator.client_connection import ClientGone, Exchange
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import Refusal
from quarterdeck.simulator.faults import Faults, refusal
from quarterdeck.simulator.routes import inference, management

Handler = Callable[[Exchange, Engine, Faults], Awaitable[None]]

GENERATE: dict[str, Handler] = {
    "/v1/chat/completions": inference.create_chat_completion,
    "/v1/completions": inference.create_completion,
}
EMBED: dict[str, Handler] = {
    "/v1/embeddings": inference.create_embedding,
    "/v1/score": inference.create_score,
    "/score": inference.create_score,
}
TOKENS: dict[str, Handler] = {"/tokenize": inference.tokenize, "/detokenize": inference.detokenize}

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
    """A simulated engine as an ASGI app, for tests in process. Raises ValueError where options don't go together."""
    return App(Engine(config or SimulatorConfig()))


class App:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        tasks = set(engine.config.tasks.values())
        self._compute = {
            **(GENERATE if tasks & {"generate", "any"} else {}),
            **(EMBED if tasks & {"embed", "any"} else {}),
            **TOKENS,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._serve(exchange)
        except Refusal as error:
            if not exchange.started:
                await exchange.answer(error.body(), status=error.status, headers=error.headers)
        except ClientGone:
            self._count_gone()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.gone or task is None:
                raise
            task.uncancel()
            self._count_gone()
        finally:
            exchange.close()

    async def _serve(self, exchange: Exchange) -> None:
        if self.engine.config.enable_request_id_headers and (given := exchange.header(b"x-request-id")):
            exchange.extra.append((b"x-request-id", given.encode("latin-1")))
        handler = self._compute.get(exchange.path)
        if handler is not None:
            if exchange.method != "POST":
                raise refusals.wrong_method("POST")
            await self._run(exchange, handler)
            return
        routes = MANAGEMENT.get(exchange.path)
        if routes is None and exchange.path.startswith("/v1/models/"):
            routes = {"GET": management.retrieve_model}
        if routes is None:
            raise refusals.no_route()
        managed = routes.get(exchange.method)
        if managed is None:
            raise refusals.wrong_method(", ".join(routes))
        await managed(exchange, self.engine, {})

    async def _run(self, exchange: Exchange, handler: Handler) -> None:
        """A route that computes: not while starting or draining, and with the request's faults."""
        engine = self.engine
        if engine.state != "ready":
            raise refusals.unavailable(f"The engine is {engine.state}")
        try:
            faults = engine.faults.draw(exchange.header(b"x-fault"), engine.config)
        except ValueError as error:
            raise refusals.invalid(str(error), "x-fault") from error
        engine.load += 1
        try:
            if faults:
                await self._before(exchange, faults)
                if exchange.ended:
                    return
            await handler(exchange, engine, faults)
        finally:
            engine.load -= 1

    async def _before(self, exchange: Exchange, faults: Faults) -> None:
        """The faults that come before an answer. Raises Refusal."""
        engine = self.engine
        if fault := faults.get("slow"):
            engine.faults.count("slow")
            await exchange.body(engine.config.max_request_body_size_mb << 20)
            exchange.watch()
            await engine.clock.sleep(1.0 if fault.value is None else fault.value)
        if fault := faults.get("refused"):
            engine.faults.count("refused")
            if fault.value is not None and engine.listener is not None:
                engine.listener.refuse(fault.value)
            await exchange.cut()
            return
        for kind in ("wrong-usage", "no-usage", "negative-usage"):
            if kind in faults:
                engine.faults.count(kind)
        error = refusal(faults, engine.config.max_model_len)
        if error is not None:
            engine.faults.count(str(error.status))
            raise error

    def _count_gone(self) -> None:
        self.engine.metrics.count("quarterdeck_simulator_client_disconnects")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
