"""The simulated engine's door: `python -m quarterdeck.engine.simulator --port 8100 --model simulated`."""

import sys

from quarterdeck.engine.simulator.engine import Engine
from quarterdeck.engine.simulator.options import parse
from quarterdeck.engine.simulator.server import Server


def main() -> int:
    config = parse(sys.argv[1:])
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
