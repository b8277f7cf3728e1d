"""Small made-up result folders with known numbers."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

START = 1_800_000_000.0
COLUMNS = (
    *("target", "scenario", "intended", "started", "first_token", "ended", "status", "outcome", "input_tokens"),
    *("cached_tokens", "output_tokens", "pieces", "itl_ms_mean", "itl_ms_p50", "itl_ms_p99", "itl_ms_max", "cache"),
    *("request_id", "cost", "rate"),
)
ABOUT: dict[str, Any] = {
    "quarterdeck": "0.1.0",
    "commit": None,
    "profile": "steady",
    "schedule": {
        "arrivals": "constant",
        "shape": {"kind": "constant", "level": 10},
        "duration": 60,
        "scenarios": {"chat": {"max_tokens": 64}, "rag": None},
    },
    "seed": 7,
    "target": {"url": "http://127.0.0.1:8000/v1", "model": "sim", "kind": "quarterdeck"},
    "baseline": None,
    "started": START,
    "ended": START + 60,
    "warmup_seconds": 0,
    "machine": {"cpu": "A processor", "cores": 2, "memory_gib": 24, "kernel": "6.1", "python": "3.11.7", "locust": "2"},
    "slo": {"ttft_ms": 200, "itl_ms": 50},
    "notes": [],
}


def request(at: float, ttft_ms: float | None = 50.0, total_ms: float = 500.0, **fields: Any) -> dict[str, Any]:
    """A row of requests.csv, due `at` seconds after the start and sent half a millisecond later.

    A stream unless `ttft_ms` is None.
    """
    due = START + at
    row: dict[str, Any] = {
        "target": "main",
        "scenario": "chat",
        "intended": due,
        "started": due + 0.0005,
        "first_token": "" if ttft_ms is None else due + ttft_ms / 1e3,
        "ended": due + total_ms / 1e3,
        "status": 200,
        "outcome": "ok",
        "input_tokens": 20,
        "cached_tokens": 0,
        "output_tokens": 10,
        "pieces": 10,
        "itl_ms_mean": "" if ttft_ms is None else 20.0,
        "rate": 10,
    }
    return row | fields


def steady(seconds: int = 60, rate: int = 10, **fields: Any) -> list[dict[str, Any]]:
    """A constant rate with equal answers."""
    return [request(i / rate, **({"rate": rate} | fields)) for i in range(seconds * rate)]


def write_run(
    folder: Path,
    requests: Iterable[Mapping[str, Any]],
    *,
    gaps: Mapping[str, Mapping[str, Any]] | None = None,
    processes: Sequence[Sequence[Any]] = (),
    metrics: Sequence[Sequence[Any]] = (),
    **about: Any,
) -> Path:
    """Write a result folder. `processes` are rows (seconds, name, pid, rss bytes, cpu seconds, threads)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(ABOUT | about), encoding="utf-8")
    with (folder / "requests.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        rows.writerows(requests)
    if gaps is not None:
        (folder / "itl.json").write_text(json.dumps(gaps), encoding="utf-8")
    if processes:
        head = ("time", "name", "pid", "rss_bytes", "cpu_seconds", "threads")
        _write_rows(folder / "processes.csv", head, [(START + at, *rest) for at, *rest in processes])
    if metrics:
        values = [(START + at, *rest) for at, *rest in metrics]
        _write_rows(folder / "metrics.csv", ("time", "series", "value"), values)
    return folder


def _write_rows(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(head)
        writer.writerows(rows)


EDGES = [1, 2, 4, 8, 16, 32, 64, 128]


GAPS = {"chat": {"edges_ms": EDGES, "counts": [0, 0, 0, 90, 8, 2, 0]}}


def rich_rows(target: str = "main", more_ms: float = 0.0) -> list[dict[str, Any]]:
    rows = [
        request(i / 10, ttft_ms=40 + more_ms, total_ms=400 + more_ms, rate=10 + i // 200, target=target, cost=0.001)
        for i in range(590)
    ]
    rows += [request(59, outcome="timeout", status=0, request_id="req_lost", target=target)]
    rows += [request(59, outcome="expected:disconnected", scenario="disconnect", target=target)]
    rows += [
        request(59, ttft_ms=2, total_ms=4, scenario="repeat", cache=c, target=target) for c in ("hit", "hit", "miss")
    ]
    return rows


def rich(folder: Path, **about: Any) -> Path:
    processes = [(t, n, p, (100 + t) * 2**20, t / 2, 3) for t in range(60) for n, p in (("gateway", 1), ("worker", 2))]
    metrics = [(t, "quarterdeck_tokens_total{}", 30 * t) for t in range(60)]
    return write_run(folder, rich_rows(), gaps={"main": GAPS}, processes=processes, metrics=metrics, **about)
