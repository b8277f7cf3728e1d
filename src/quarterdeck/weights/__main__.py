"""`python -m quarterdeck.weights REPOSITORY [--revision R] --cache DIR`: downloads a repository, in its own process.

Writes a JSON object a line to stdout: `{"done": bytes, "total": bytes}` as it goes, and at its end either
`{"folder": …, "revision": commit, "size": bytes}` or `{"code": …, "message": …}`. It ends when nothing reads them any
more. Killed at any time, it leaves partial files that the next one resumes.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.hub import Hub

REPORT_SECONDS = 0.25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.weights")
    parser.add_argument("repository")
    parser.add_argument("--revision")
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints
    reporter = _Reporter(lines)
    threading.Thread(target=reporter.run, name="progress", daemon=True).start()
    try:
        found = Hub(os.environ, arguments.cache).fetch(arguments.repository, arguments.revision, reporter.set)
    except WeightsError as error:
        reporter.write({"code": error.code, "message": str(error)})
        return 1
    reporter.write({"done": found.size, "total": found.size})
    reporter.write({"folder": str(found.folder), "revision": found.revision, "size": found.size})
    return 0


class _Reporter:
    """Writes the progress at most four times a second, and at least once: a reader that is gone is noticed."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self._progress = (0, 0)
        self._lock = threading.Lock()

    def set(self, done: int, total: int) -> None:
        self._progress = (done, total)

    def run(self) -> None:
        while True:
            done, total = self._progress
            self.write({"done": done, "total": total})
            time.sleep(REPORT_SECONDS)

    def write(self, line: dict[str, Any]) -> None:
        try:
            with self._lock:
                print(json.dumps(line), file=self._lines, flush=True)
        except BrokenPipeError:
            os._exit(1)  # who asked for it is gone; partial files stay


if __name__ == "__main__":
    sys.exit(main())
