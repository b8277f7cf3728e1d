"""Signals as callbacks of the event loop."""

import asyncio
import signal
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signals(callback: Callable[[], object], signals: tuple[signal.Signals, ...] = STOP_SIGNALS) -> None:
    """Call `callback` in the running loop for each of the signals, in place of an earlier handler."""
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, callback)


def restore_signals(signals: tuple[signal.Signals, ...] = STOP_SIGNALS) -> None:
    """Give the signals their default action back: the next one ends the process."""
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.remove_signal_handler(number)
