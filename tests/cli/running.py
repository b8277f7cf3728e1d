"""A program under test, read line by line."""

import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.platform import free_port


class Running:
    """Reads a program's lines. Waiting for one fails if the program exits, or after `patience` seconds of silence."""

    def __init__(self, process: "subprocess.Popen[str]", patience: float) -> None:
        self.process = process
        self.lines: list[str] = []
        self._patience = patience
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, text: str) -> str:
        """Wait for the next line that contains `text`."""
        while True:
            try:
                line = self._queue.get(timeout=self._patience)
            except queue.Empty:
                raise AssertionError(f"{text!r} did not come:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"it ended without {text!r}:\n{self.output}")
            self.lines.append(line)
            if text in line:
                return line

    def interrupt(self) -> int:
        """Send Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Read to the end; return the exit status."""
        patience = max(self._patience, 60)
        while (line := self._queue.get(timeout=patience)) is not None:
            self.lines.append(line)
        return self.process.wait(patience)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], patience: float = 30.0) -> Iterator[Running]:
    with subprocess.Popen(
        command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        program = Running(process, patience)
        try:
            yield program
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]
