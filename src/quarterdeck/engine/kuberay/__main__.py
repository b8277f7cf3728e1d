"""`python -m quarterdeck.engine.kuberay`: the engine door beside the head of a RayService."""

import argparse
import asyncio
import logging
import sys

import httpx
import uvicorn

from quarterdeck.engine.kuberay.app import App
from quarterdeck.engine.kuberay.dashboard import Dashboard
from quarterdeck.engine.kuberay.door import ObservingDoor
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.net.browser_guard import BrowserGuard
from quarterdeck.net.signals import on_signals
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.environment import Environment
from quarterdeck.telemetry.logging import configure

log = logging.getLogger("quarterdeck.engine")

DASHBOARD = "http://127.0.0.1:8265"
USAGE_STATUS = 2


def main() -> int:
    description = (
        f"{(__doc__ or '').partition(chr(10))[0]} Settings: QUARTERDECK_* variables (docs/reference/settings.md)."
    )
    argparse.ArgumentParser(prog="python -m quarterdeck.engine.kuberay", description=description).parse_args()
    try:
        environment = Environment.read()
    except ValueError as error:
        print(error, file=sys.stderr)
        return USAGE_STATUS
    configure(environment.log_level, "engine")
    asyncio.run(serve(environment, environment.variables.get("RAY_AUTH_TOKEN")))
    return 0


async def serve(environment: Environment, token: str | None) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        door = ObservingDoor(Dashboard(client, DASHBOARD, token), ReplicaClient(client))
        server = EmbeddedServer(
            uvicorn.Config(
                BrowserGuard(App(door), is_loopback=False),
                host="0.0.0.0",  # noqa: S104  # gateways in other pods read it; a NetworkPolicy admits no one else
                port=environment.engine_port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )

        def stop() -> None:
            server.should_exit = True

        on_signals(stop)
        watching = asyncio.create_task(door.run())
        serving = asyncio.create_task(server.serve())
        await asyncio.wait([watching, serving], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        watching.cancel()
        await asyncio.wait([watching, serving])
        for task in (watching, serving):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
