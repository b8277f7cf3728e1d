"""Entry point: `python -m quarterdeck.simulator --port 8100 --model simulated`."""

import sys

from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.options import parse
from quarterdeck.simulator.server import Server
from quarterdeck.simulator.start_failures import fail_start


def main() -> int:
    config = parse(sys.argv[1:])
    if config.fail_start and (code := fail_start(config.fail_start, config.model)):
        return code
    try:
        engine = Engine(config)
        server = Server(engine, lambda url: print(f"listening on {url}", flush=True))
        server.run()
    except (OSError, ValueError) as error:
        print(f"quarterdeck simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
