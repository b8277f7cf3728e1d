"""`python -m quarterdeck.gateway`: reads the settings, serves, and exits after SIGTERM.

Status 0: every record is in Redis or on disk. 1: some are not, or it could not listen. 2: a malformed setting.

With `--migrate` it migrates the database and exits, for a job that runs before new gateways serve. Any number of them
may run, beside gateways as well; status 0: the tables are there. 1: they are not. 2: as above. Without it a gateway
migrates at its start, and is not ready before.
"""

import argparse
import asyncio
import gc
import logging
import sys
from typing import Any

import uvloop

from quarterdeck.gateway.cluster.membership import Cluster
from quarterdeck.gateway.composition import compose
from quarterdeck.gateway.migration import MIGRATE_RETRY_SECONDS
from quarterdeck.net.descriptors import log_limit, raise_limit
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.sockets import listen
from quarterdeck.net.tls import HANDSHAKE_SECONDS
from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import ConfigSource, file_source
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.migration import MigrationError
from quarterdeck.telemetry.logging import configure

log = logging.getLogger("quarterdeck.gateway")


class GatewayLoop(uvloop.Loop):
    """uvloop with our time-out of TLS handshakes, which uvicorn does not pass on."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("ssl") is not None:
            kwargs.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        return await super().create_server(*args, **kwargs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("--migrate", action="store_true", help="migrate the database, and exit")
    parser.add_argument(
        "--timeout",
        type=durations.parse,
        default=300.0,
        metavar="SECONDS",
        help="how long --migrate waits for the database (default: %(default)g)",
    )
    arguments = parser.parse_args()
    return migrate(arguments.timeout) if arguments.migrate else serve()


def migrate(timeout: float) -> int:
    """Migrate the database, which may still be starting for `timeout` seconds. Returns the exit status."""
    try:
        environment = Environment.read()
        configure(environment.log_level, "quarterdeck-migration")
        return asyncio.run(_migrate(environment.database_url, timeout))
    except ValueError as error:
        print(f"quarterdeck.gateway: {error}", file=sys.stderr)
        return 2


async def _migrate(url: str, timeout: float) -> int:
    database = Database(url)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    try:
        while True:
            try:
                await database.migrate()
            except DatabaseUnavailableError as error:
                if loop.time() + MIGRATE_RETRY_SECONDS >= until:
                    log.critical("the database was not available within %g s: %s", timeout, error)
                    return 1
                await asyncio.sleep(MIGRATE_RETRY_SECONDS)
            except MigrationError as error:
                log.critical("%s", error)
                return 1
            else:
                log.info("the database is migrated")
                return 0
    finally:
        await database.close()


def serve() -> int:
    """Run a gateway until SIGTERM. Returns the exit status."""
    try:
        environment = Environment.read()
        cluster = Cluster.of(environment)
        source: ConfigSource = file_source(environment) if cluster is None else cluster.source
        config = source.read()
        listener = listen(environment.host, environment.port)
    except (ValueError, ConfigError) as error:
        print(f"quarterdeck.gateway: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"quarterdeck.gateway: cannot listen: {error}", file=sys.stderr)
        return 1
    configure(environment.log_level, "quarterdeck-gateway")
    descriptors = raise_limit()
    log_limit(descriptors)
    for text in (*environment.ignored, *Proxies(environment.variables).problems(), *config.problems):
        log.warning("%s", text)

    async def run() -> int:
        try:
            service = compose(environment, source, config, descriptors, cluster)
        except (ValueError, OSError) as error:  # an invalid URL, a secret, or a certificate
            print(f"quarterdeck.gateway: {error}", file=sys.stderr)
            return 2
        _tune_garbage_collection()
        return 0 if await service.run(listener) else 1

    with asyncio.Runner(loop_factory=GatewayLoop) as runner:
        return runner.run(run())


def _tune_garbage_collection() -> None:
    """Exempt what was imported and built from collections: it lives as long as the process.

    Collections took an eighth of the hot path's time, and a full one 100 ms. A request leaves no cycles, so the
    thresholds can be higher than Python's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


if __name__ == "__main__":
    sys.exit(main())
