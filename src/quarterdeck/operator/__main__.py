"""`python -m quarterdeck.operator`: run an operator until SIGTERM."""

import argparse
import asyncio
import logging
import sys

from quarterdeck.net.signals import on_signals, restore_signals
from quarterdeck.operator.cluster import Cluster
from quarterdeck.operator.composition import Operator
from quarterdeck.operator.exposition import observed_cluster
from quarterdeck.operator.settings import OperatorSettings
from quarterdeck.telemetry import logging as logs
from quarterdeck.telemetry.operator_metrics import OperatorMetrics

log = logging.getLogger("quarterdeck.operator")


async def operate(settings: OperatorSettings) -> None:
    """Run an operator until a signal. The second signal has its default action and ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        stop.set()
        restore_signals()

    on_signals(on_signal)
    metrics = OperatorMetrics()
    cluster = Cluster.connect(on_call=observed_cluster(metrics))
    await Operator(settings, cluster, metrics).run(stop)


def main() -> int:
    argparse.ArgumentParser(prog="python -m quarterdeck.operator", description=__doc__).parse_args()
    logs.configure("INFO", "operator")
    try:
        settings = OperatorSettings.read()
        logs.configure(settings.log_level, "operator")
        # kopf only carries events here; what it logs at INFO are its own starts and stops.
        logging.getLogger("kopf").setLevel(logging.ERROR)
        asyncio.run(operate(settings))
    except (OSError, ValueError) as error:
        log.critical("operator failed: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
