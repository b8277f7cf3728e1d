"""`python -m quarterdeck.worker`: run a worker until SIGTERM, or put set-aside records back into the stream."""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from quarterdeck.kube.access import find_access
from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.config_source import ConfigMapSource, source_of
from quarterdeck.net.descriptors import raise_limit
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.signals import on_signals, restore_signals
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import ConfigSource, file_source
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.store.migration import MigrationError
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.telemetry import logging as logs
from quarterdeck.worker.composition import compose
from quarterdeck.worker.streams import replay_dead

log = logging.getLogger("quarterdeck.worker")


FIRST_CONFIG_SECONDS = 20.0
"""How long a worker in a cluster waits for its first configuration. It answers no probe meanwhile."""
NICE = 10
"""Rows and traces can wait; requests and engines on the same machine can't."""


async def work(environment: Environment) -> None:
    """Run a worker until a signal. The second signal has its default action and ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        stop.set()
        restore_signals()

    on_signals(on_signal)
    raise_limit()
    if environment.config_map is not None:
        await work_in_cluster(environment, stop)
        return
    source = file_source(environment)
    await compose(environment, source, telemetry_of(source), config_of(source)).run(stop)


async def work_in_cluster(environment: Environment, stop: asyncio.Event) -> None:
    """Follow the operator's ConfigMap. Raises AccessError."""
    api = KubeApi(find_access(environment.variables, environment.namespace))
    source = source_of(api, environment, "worker")
    config = source.read()
    try:
        if source.waiting is not None:
            config = await first_config(source, stop) or config
        known = config if source.waiting is None else None
        await compose(environment, source, config.telemetry, known, source.run).run(stop)
    finally:
        await api.close()


async def first_config(source: ConfigMapSource, stop: asyncio.Event) -> Config | None:
    """Wait for the configuration: on the first start of all, the operator writes it in these seconds, and sinks of
    traces are made once. None: it did not come. The worker starts without it, as records must reach the ledger;
    contents are not kept until it comes, since they could not be redacted."""
    following, changed = asyncio.create_task(source.run()), asyncio.create_task(source.changed())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({changed, stopped}, timeout=FIRST_CONFIG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return changed.result() if changed.done() else None
    except ConfigError as error:
        log.error("invalid configuration: %s", error)
        return None
    finally:
        if source.waiting is not None:
            log.warning("starting without a configuration: %s", source.waiting)
        for task in (following, changed, stopped):
            task.cancel()
        await asyncio.gather(following, changed, stopped, return_exceptions=True)


async def replay(environment: Environment, org: str) -> None:
    redis = Redis(environment.redis_url)
    try:
        log.info("records put back into the stream: %d", await replay_dead(redis, org))
    finally:
        await redis.close()


def telemetry_of(source: ConfigSource) -> TelemetryConfig:
    """The labels of traces; the defaults where the configuration is invalid, as records must reach the ledger."""
    try:
        return source.read().telemetry
    except ConfigError as error:
        log.error("invalid configuration, labelling traces with defaults: %s", error)
        return TelemetryConfig()


def config_of(source: ConfigSource) -> Config | None:
    """The configuration; None where it is invalid: records must reach the ledger, and contents must not (they could
    not be redacted)."""
    try:
        return source.read()
    except ConfigError:  # logged by `telemetry_of`
        return None


def _yield_the_processor() -> None:
    """Give way to other processes at once, where the system can.

    Niceness alone lets a running process finish its time slice, and the gateway's Redis would wait for it; SCHED_IDLE
    does not. Between sessions Linux shares by the niceness of the session's autogroup, which is changed only if this
    process leads its session: others in it would starve.
    """
    os.nice(NICE)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox that forbids it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without autogroups
            Path("/proc/self/autogroup").write_text(str(NICE))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.worker", description=__doc__)
    parser.add_argument(
        "--replay-dead", action="store_true", help="put set-aside records back into the stream, and exit"
    )
    parser.add_argument("--org", default=DEFAULT_ORG, help="the organisation of the records (default: %(default)s)")
    arguments = parser.parse_args()
    logs.configure("INFO", "worker")
    _yield_the_processor()
    try:
        environment = Environment.read()
        logs.configure(environment.log_level, "worker")
        for text in (*environment.ignored, *Proxies(environment.variables).problems()):
            log.warning("%s", text)
        if arguments.replay_dead:
            asyncio.run(replay(environment, arguments.org))
        else:
            asyncio.run(work(environment))
    except (OSError, ValueError, MigrationError, RedisUnavailableError, RedisError) as error:
        log.critical("worker failed: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
