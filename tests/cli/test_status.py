"""`quarterdeck status`: what it prints, and its exit status."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from tests.load.servers import answering

from quarterdeck.cli.status import command

PROBLEM = "environment variable X is not set"


def status(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int | None, body: Any = None) -> Result:
    """Run it with a gateway that answers `/readyz` so. None: there is no gateway."""
    monkeypatch.setenv("QUARTERDECK_STATE", str(folder))
    for name in ("PORT", "WORKER_PORT", "ENGINE_PORT"):
        monkeypatch.setenv(f"QUARTERDECK_{name}", "1")
    if code is None:
        return CliRunner().invoke(command)
    with answering({"/readyz": (code, json.dumps(body).encode())}) as url:
        monkeypatch.setenv("QUARTERDECK_PORT", str(urlsplit(url).port))
        return CliRunner().invoke(command)


@pytest.mark.parametrize(
    ("code", "word", "parts", "models", "exit_status"),
    [
        (200, "ready", {"redis": "ready"}, {"m": {"state": "ready"}}, 0),
        (200, "degraded", {"redis": "away", "config": "refused, keeping the previous one: x:3: y"}, {}, 0),
        (200, "degraded", {}, {"m": {"state": "unavailable", "detail": PROBLEM}}, 0),
        (503, "unavailable", {}, {"m": {"state": "resting", "detail": "connection failed"}}, 1),
        (503, "draining", {}, {}, 1),
    ],
)
def test_it_says_what_readyz_says(
    code: int,
    word: str,
    parts: dict[str, str],
    models: dict[str, dict[str, str]],
    exit_status: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    done = status(monkeypatch, tmp_path, code, {"status": word, "parts": parts, "models": models})
    assert done.exit_code == exit_status
    assert done.output.splitlines()[2].split()[:2] == ["gateway", word]
    for name, text in parts.items():
        assert (f"gateway: {name}: {text}" in done.output) is (text != "ready")
    for model in models.values():
        assert (f"gateway: model m: {model['state']}" in done.output) is (model["state"] != "ready")
        assert model.get("detail", "") in done.output


def test_without_a_gateway_there_is_no_response(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = status(monkeypatch, tmp_path, None)
    assert done.exit_code == 3
    assert done.output.count("no response") == 3


def test_another_server_on_the_port_is_not_the_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = status(monkeypatch, tmp_path, 404, "x")
    assert done.exit_code == 1
    assert "responds with status 404" in done.output
