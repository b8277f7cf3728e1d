"""An offline run: the requests of a file, executed by engines of its own, outside the platform.

As in `/v1/batches`, all lines are checked before the first is executed, and each is in the output file or in the error
file at the end. Nothing of it passes a gateway: no key, limit or budget applies, and no record is made.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.engine.offline.result_files import Identity, ResultFiles
from quarterdeck.protocol.batches.input_lines import (
    Line,
    LineError,
    LineTooLongError,
    Validation,
    numbered_lines,
    read_line,
)
from quarterdeck.protocol.batches.results import Result

READ_BYTES = 1024 * 1024
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Block:
    """Results that arrived together."""

    results: list[Result]
    ready: float
    """When their engine had started. Unix seconds."""


class IncompleteRunError(Exception):
    """Requests have no result though the run has come to its end; the message says how many."""


Execute = Callable[[Iterable[Line], str], Iterator[Block]]
"""Of lines and the id of the run."""
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """An input whose lines are valid, unless there are `errors`."""

    total: int
    model: str
    sha256: str
    errors: list[LineError]


def check(path: Path, endpoint: str) -> Checked:
    """Check every line. Raises OSError."""
    return asyncio.run(_check(path, endpoint))


async def _check(path: Path, endpoint: str) -> Checked:
    validation, digest = Validation(endpoint, most=None), hashlib.sha256()

    async def pieces() -> AsyncIterator[bytes]:
        for piece in _pieces(path):
            digest.update(piece)
            yield piece

    try:
        async for number, text in numbered_lines(pieces()):
            validation.add(number, text)
    except LineTooLongError as error:
        validation.errors.append(LineError("line_too_long", "This line is too long.", error.number))
    validation.finish()
    return Checked(validation.total, validation.model or "", digest.hexdigest(), validation.errors)


def run(
    path: Path,
    endpoint: str,
    checked: Checked,
    output: Path,
    errors: Path,
    execute: Execute,
    report: Report,
    *,
    engine: str = "vllm",
) -> dict[str, Any]:
    """Execute what has no result yet. Returns the run as a batch is shown, with what it took. `engine`: its kind.

    Raises ResultFilesError, IncompleteRunError, OSError, and what `execute` raises. What is done by then is kept.
    """
    run_id = f"offline_{hashlib.sha256(f'{checked.sha256}/{endpoint}'.encode()).hexdigest()[:24]}"
    with ResultFiles(output, errors, Identity(checked.sha256, endpoint, engine)) as files:
        known, before = len(files.done), msgspec.structs.replace(files.totals)
        began = reported = time.time()
        ready: float | None = None
        stored: set[int] = set()
        report(_progress(files, checked, "starting the engine" if known < checked.total else "done"))
        for block in execute(_pending(path, endpoint, files.done), run_id):
            files.write([each for each in block.results if each.line not in stored])  # Ray repeats lost tasks
            stored.update(each.line for each in block.results)
            ready = block.ready if ready is None else min(ready, block.ready)
            now = time.time()
            if abs(now - reported) >= PROGRESS_SECONDS:
                reported = now
                report(_progress(files, checked, "in_progress"))
        ended = time.time()
        totals = files.totals
        if missing := checked.total - totals.completed - totals.failed:
            raise IncompleteRunError(f"{missing} requests have no result; the same command executes them")
        written = files.finish()
    executed = totals.completed + totals.failed - known
    start = 0.0 if ready is None else min(max(ready - began, 0.0), ended - began)  # clocks of nodes differ
    seconds = max(ended - began - start, 1e-3)
    return {
        "id": run_id,
        "object": "batch",
        "endpoint": endpoint,
        "model": checked.model,
        "status": "completed",
        "errors": None,
        "request_counts": {"total": checked.total, "completed": totals.completed, "failed": totals.failed},
        "usage": {
            "input_tokens": totals.tokens.input,
            "output_tokens": totals.tokens.output,
            "total_tokens": totals.tokens.input + totals.tokens.output,
        },
        "written": {name: str(target) for name, target in written.items()},
        "executed": executed,
        "seconds": round(ended - began, 3),
        "start_seconds": round(start, 3),
        "requests_per_second": round(executed / seconds, 2),
        "output_tokens_per_second": round((totals.tokens.output - before.tokens.output) / seconds, 1),
    }


def _progress(files: ResultFiles, checked: Checked, status: str) -> dict[str, Any]:
    counts = {"total": checked.total, "completed": files.totals.completed, "failed": files.totals.failed}
    return {"status": status, "request_counts": counts}


def _pending(path: Path, endpoint: str, done: set[str]) -> Iterator[Line]:
    """The lines without a result."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in _pieces(path):
            yield piece

    for number, text in _drained(numbered_lines(pieces())):
        line = read_line(number, text, endpoint)
        if line.custom_id not in done:
            yield line


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(READ_BYTES), b"")


def _drained(lines: AsyncIterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """An asynchronous iterator that waits for nothing, as an ordinary one."""
    while True:
        try:
            anext(lines).__await__().send(None)
        except StopIteration as found:
            yield found.value
        except StopAsyncIteration:
            return
