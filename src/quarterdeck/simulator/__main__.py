"""Entry point: `python -m quarterdeck.simulator --port 8100 --model simulated`, or with `--follow-config`."""

import os
import sys

from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.source import file_source
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.options import parse
from quarterdeck.simulator.server import Server
from quarterdeck.simulator.start_failures import fail_start


def main() -> int:
    config = parse(sys.argv[1:])
    if config.follow_config:
        return run_fleet(config)
    if config.fail_start and (code := fail_start(config.fail_start, config.model)):
        return code
    try:
        engine = Engine(config)
        server = Server(engine, announce)
        server.run()
    except (OSError, ValueError) as error:
        print(f"quarterdeck simulator: {error}", file=sys.stderr)
        return 1
    return 0


def run_fleet(options: SimulatorConfig) -> int:
    """Serve the models of the configuration. Returns the exit status."""
    # A single engine needs none of these, and its start is measured in tests by the hundred.
    from quarterdeck.model_lifecycle.start_times import StartTimes
    from quarterdeck.simulator.fleet.door import FleetDoor
    from quarterdeck.simulator.fleet.runtime import SimulatedRuntime
    from quarterdeck.simulator.fleet.server import FleetServer
    from quarterdeck.telemetry.logging import configure
    from quarterdeck.weights.downloads import Downloads
    from quarterdeck.weights.pulls import Pulls

    try:
        environment = Environment.read()
        source = file_source(environment)
        config = source.read()
        configure(environment.log_level, "simulator")
        downloads = Downloads(os.environ, environment.cache)
        needed = downloads if environment.variables.get("HF_ENDPOINT") else None
        runtime = SimulatedRuntime(options, config_path(environment).parent, needed)
        door = FleetDoor(runtime, StartTimes(None), drain_seconds=options.drain_timeout)
        door.follow(config.models)
        FleetServer(door, Pulls(downloads), source, options, announce).run()
    except (ConfigError, OSError, ValueError) as error:
        print(f"quarterdeck simulator: {error}", file=sys.stderr)
        return 1
    return 0


def announce(url: str) -> None:
    print(f"listening on {url}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
