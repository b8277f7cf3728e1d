"""Requests through a pool of engines, by Ray Data: blocks of requests are spread over the actors that hold the engines,
and results arrive as their blocks are complete."""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data

from quarterdeck.engine.offline.engine_server import EngineServer, ServerCommand
from quarterdeck.engine.offline.line_executor import LineExecutor
from quarterdeck.engine.offline.offline_run import Block
from quarterdeck.protocol.batches.input_lines import Line
from quarterdeck.protocol.batches.results import Result, Tokens

BLOCK_LINES = 16
"""Requests that an actor gets at once, and whose results are stored at once: what a killed run repeats."""
CPUS = 1
"""Of Ray's, for an engine."""
BLOCK_BYTES = 8 * 1024 * 1024
LINES = pa.schema([("number", pa.int64()), ("custom_id", pa.string()), ("model", pa.string()), ("body", pa.binary())])
RESULTS = pa.schema(
    [
        ("line", pa.int64()),
        ("is_error", pa.bool_()),
        ("text", pa.binary()),
        ("ready", pa.float64()),
        *((name, pa.int64()) for name in Tokens.__struct_fields__),
    ]
)


@dataclass(frozen=True, slots=True)
class Pool:
    """The engines of a run."""

    command: ServerCommand
    path: str
    """Of the endpoint."""
    run: str
    replicas: int
    requests: int
    """That one engine executes at once."""
    gpus: int
    """Of one engine."""


class EngineReplica:
    """An actor that holds an engine. Ray calls it with blocks, several at once."""

    def __init__(self, pool: Pool) -> None:
        self._server = EngineServer(sys.executable, pool.command, pool.path)
        self._server.start()
        self._ready = time.time()
        self._executor = LineExecutor(self._server.post, pool.run, pool.requests)

    async def __call__(self, block: pa.Table) -> pa.Table:
        lines = [Line(**row) for row in block.to_pylist()]
        results = await asyncio.gather(*map(self._executor.execute, lines))
        return pa.Table.from_pylist([{**_row(each), "ready": self._ready} for each in results], schema=RESULTS)

    def __del__(self) -> None:
        self._server.stop()


def room(gpus: int) -> int:
    """How many engines with so many GPUs fit on Ray's nodes."""
    resources = ray.cluster_resources()
    fitting = int(resources.get("CPU", 0)) // CPUS
    return min(fitting, int(resources.get("GPU", 0)) // gpus) if gpus else fitting


def execute(lines: Iterable[Line], pool: Pool) -> Iterator[Block]:
    """Execute requests, in any order. Raises what Ray raises, with an engine's last words where it does not start."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    blocks = [ray.put(block) for block in _blocks(lines)]
    if not blocks:
        return
    at_once = 2 + -(-pool.requests // BLOCK_LINES)
    results = ray.data.from_arrow_refs(blocks).map_batches(
        EngineReplica,
        fn_constructor_args=(pool,),
        batch_format="pyarrow",
        batch_size=None,  # a block
        compute=ray.data.ActorPoolStrategy(
            size=min(pool.replicas, len(blocks)),
            max_tasks_in_flight_per_actor=at_once + 2,
            max_concurrent_calls_per_actor=at_once,
        ),
        num_cpus=CPUS,
        num_gpus=pool.gpus or None,
    )
    for block in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        rows = block.to_pylist()
        yield Block([_result(row) for row in rows], min((row["ready"] for row in rows), default=time.time()))


def _blocks(lines: Iterable[Line]) -> Iterator[pa.Table]:
    source = iter(lines)
    while some := _some(source):
        rows = [{name: getattr(line, name) for name in LINES.names} for line in some]
        yield pa.Table.from_pylist(rows, schema=LINES)


def _some(source: Iterator[Line]) -> Sequence[Line]:
    found: list[Line] = []
    size = 0
    for line in islice(source, BLOCK_LINES):
        found.append(line)
        size += len(line.body)
        if size >= BLOCK_BYTES:
            break
    return found


def _row(result: Result) -> dict[str, Any]:
    tokens = {name: getattr(result.tokens, name) for name in Tokens.__struct_fields__}
    return {"line": result.line, "is_error": result.is_error, "text": result.text, **tokens}


def _result(row: dict[str, Any]) -> Result:
    tokens = Tokens(**{name: row[name] for name in Tokens.__struct_fields__})
    return Result(row["line"], row["is_error"], row["text"], tokens)
