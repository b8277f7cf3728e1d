"""A real Ray with Serve: every panel of its dashboard is answered with data, and the recorded series exist."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observability.ray_dashboard import RAY
from tests.prometheus import Prometheus
from tests.servers import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = CHECKOUT / ".envs" / "engine" / "bin" / "python"
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[dict[str, Any]]:
    assert ENGINE_PYTHON.exists(), "the engine's environment is missing: make setup"
    folder = tempfile.mkdtemp(prefix="qd-ray-")  # Ray's sockets bound the path's length
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [ENGINE_PYTHON, Path(__file__).with_name("ray_serve.py"), folder],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None and process.stdin is not None
    try:
        line = next((line for line in process.stdout if line.startswith(b"{")), b"")
        assert line, (tmp_path / "ray.log").read_text()[-2000:]
        yield json.loads(line)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_every_panel_of_ray_has_data(running: dict[str, Any], tmp_path: Path) -> None:
    (group,) = running["targets"]
    (target,) = group["targets"]
    prometheus = Prometheus(tmp_path, {"ray": [target]}, [])
    prometheus.start()
    missing: list[str] = []

    def is_complete() -> bool:
        for path in ("/tiny/v1/models", "/nowhere"):  # errors are shown, too
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{running['port']}{path}", timeout=10).close()
        missing[:] = [
            f"{panel.title}: {query.expr}"
            for panel in RAY.panels
            for query in panel.queries
            if not _has_data(prometheus, query.expr.replace("$__rate_interval", "1m").replace("$application", ".*"))
        ]
        return not missing

    try:
        wait_until(is_complete, seconds=180, what=lambda: f"without data: {missing}")
    finally:
        prometheus.stop()
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as response:
        exported = {
            line.split()[2].removesuffix("_total") for line in response.read().decode().splitlines() if "# TYPE" in line
        }
    named = {name for name in Path(__file__).with_name("ray_series.txt").read_text().split() if "ray_serve_" in name}
    # Some series appear with what they count, such as a spilled object.
    assert {
        name for name in named if any(name in query.expr for panel in RAY.panels for query in panel.queries)
    } <= exported


def _has_data(prometheus: Prometheus, expr: str) -> bool:
    return any(not math.isnan(float(series["value"][1])) for series in prometheus.query(expr))
