import asyncio
import os
import signal

from quarterdeck.net.signals import on_signals, restore_signals


async def test_a_signal_is_a_callback_until_it_is_restored() -> None:
    before = signal.getsignal(signal.SIGHUP)
    first, second = asyncio.Event(), asyncio.Event()
    on_signals(first.set, (signal.SIGHUP,))
    on_signals(second.set, (signal.SIGHUP,))
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.wait_for(second.wait(), 5)
    assert not first.is_set()
    restore_signals((signal.SIGHUP,))
    assert signal.getsignal(signal.SIGHUP) == before == signal.SIG_DFL
