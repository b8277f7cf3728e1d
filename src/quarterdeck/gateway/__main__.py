"""`python -m quarterdeck.gateway`: reads the settings, serves, and exits after SIGTERM.

Status 0: every record is in Redis or on disk. 1: some are not, or it could not listen. 2: a malformed setting.
"""

import asyncio
import gc
import logging
import sys

import uvloop

from quarterdeck.gateway.cluster.membership import Cluster
from quarterdeck.gateway.composition import compose
from quarterdeck.net.descriptors import log_limit, raise_limit
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.sockets import listen
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.source import ConfigSource, FileSource
from quarterdeck.telemetry.logging import configure

log = logging.getLogger("quarterdeck.gateway")


def main() -> int:
    try:
        environment = Environment.read()
        cluster = Cluster.of(environment)
        source: ConfigSource = FileSource(config_path(environment)) if cluster is None else cluster.source
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
    for text in (*environment.ignored, *Proxies(environment.variables).problems()):
        log.warning("%s", text)

    async def run() -> int:
        try:
            service = compose(environment, source, config, descriptors, cluster)
        except (ValueError, OSError) as error:  # an invalid URL of Redis or of the database, or a secret
            print(f"quarterdeck.gateway: {error}", file=sys.stderr)
            return 2
        _tune_garbage_collection()
        return 0 if await service.run(listener) else 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
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
