"""In a process of their own: a signal's handler and its inherited action belong to the whole process."""

import subprocess
import sys

PROGRAM = """
import asyncio, os, signal
from quarterdeck.net.signals import on_signals, restore_signals

async def main():
    first, second = asyncio.Event(), asyncio.Event()
    on_signals(first.set, (signal.SIGHUP,))
    on_signals(second.set, (signal.SIGHUP,))
    os.kill(os.getpid(), signal.SIGHUP)
    await second.wait()
    assert not first.is_set()
    print("called", flush=True)
    restore_signals((signal.SIGHUP,))
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.Event().wait()

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
asyncio.run(main())
"""


def test_a_signal_is_a_callback_until_it_is_restored() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("called\n", "")
    assert done.returncode == -1  # SIGHUP's default action
