"""Failures at the start, in real processes. That each has its reason is tests/operator/diagnosis' matter."""

import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.operator.diagnosis.engine_errors import explain
from quarterdeck.simulator.config import SimulatorConfig, validate
from quarterdeck.simulator.start_failures import FAILURES, fail_start, has_memory_limit

CODES = {"invalid-argument": 2, "killed": 137, "segmentation-fault": 139}
REASONS = {
    "accelerator-out-of-memory": "AcceleratorOutOfMemory",
    "adapter-rank": "AdapterRankTooLarge",
    "context-too-long": "InvalidEngineArgument",
    "damaged-weights": "InvalidSource",
    "disk-full": "DiskFull",
    "gated": "HubUnauthorized",
    "hub-unreachable": "HubUnreachable",
    "invalid-argument": "InvalidEngineArgument",
    "kv-cache-too-small": "AcceleratorOutOfMemory",
    "model-not-found": "SourceNotFound",
    "no-device": "NoDevice",
    "revision-not-found": "SourceNotFound",
    "unsupported-architecture": "InvalidSource",
}
"""Of those with a known cause."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quarterdeck.simulator", "--model", "acme/tiny", "--port", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": "src"} | environment)


@pytest.mark.parametrize("name", ["gated", "invalid-argument", "killed"])
def test_the_process_ends_with_the_exit_code_and_the_text(name: str) -> None:
    ended = run("--fail-start", name)
    assert ended.returncode == CODES.get(name, 1)
    assert "listening" not in ended.stdout
    assert ("acme/tiny" in ended.stderr) == (name == "gated")


@pytest.mark.parametrize("name", sorted(REASONS))
def test_the_last_lines_have_the_reason(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    log = tmp_path / "termination-log"
    log.touch()
    assert fail_start(name, "acme/tiny", termination_log=str(log)) == CODES.get(name, 1)
    shown = log.read_text() or capsys.readouterr().err[-2048:]
    error = explain(shown)
    assert error is not None and error.reason == REASONS[name]


def test_a_gated_model_starts_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert fail_start("gated", "acme/tiny") == 0


def test_no_termination_log_is_created(tmp_path: Path) -> None:
    assert fail_start("adapter-rank", "m", termination_log=str(tmp_path / "log")) == 1
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("limit", "expected"), [("402653184\n", True), ("max\n", False), ("9223372036854771712\n", False), ("", False)]
)
def test_memory_is_used_up_only_under_a_limit(limit: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "limit").write_text(limit)
    assert has_memory_limit([str(tmp_path / "absent"), str(tmp_path / "limit")]) == expected
    assert not has_memory_limit([str(tmp_path / "absent")])


def test_an_unknown_failure_is_refused() -> None:
    with pytest.raises(ValueError, match="fail-start: 'tea' is none of model-not-found"):
        validate(SimulatorConfig(fail_start="tea"))


def test_every_failure_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert [name for name in FAILURES if f"`{name}`" not in page] == []
