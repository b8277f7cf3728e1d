"""The output of replicas."""

from pathlib import Path

import pytest

from quarterdeck.engine import replica_logs
from quarterdeck.engine.replica_logs import ReplicaLogs, phase_of


@pytest.mark.parametrize(
    ("line", "phase", "detail"),
    [
        ("(EngineCore) INFO [core.py:123] Initializing a V1 LLM engine (v0.29.0)", "loading", "starting the engine"),
        ("(Worker) INFO [cpu_model_runner.py:131] Starting to load model /m...", "loading", ""),
        ("(Worker) Loading safetensors checkpoint shards:  50% Completed | 1/2", "loading", "loading weights 50 %"),
        ("(EngineCore) INFO [monitor.py:34] torch.compile takes 12.07 s in total", "compiling", ""),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  7%", "compiling", ""),
        ("Warming up the replica of chat", "warming_up", ""),
    ],
)  # fmt: skip
def test_a_line_of_vllm_names_the_phase(line: str, phase: str, detail: str) -> None:
    found = phase_of(line)
    assert found is not None and (found.phase, found.detail) == (phase, detail)


@pytest.mark.parametrize(
    "line",
    [
        "WARNING 11-30 07:28:38 [vllm.py:1371] Enforce eager set, disabling torch.compile and CUDAGraphs.",
        "INFO [compilation.py:329] Enabled custom fusions: norm_quant, act_quant",
        "",
    ],
)
def test_other_lines_name_none(line: str) -> None:
    assert phase_of(line) is None


def test_output_is_kept_in_the_models_own_file_as_it_grows(tmp_path: Path) -> None:
    session = tmp_path / "session_2026-11-30" / "logs"
    session.mkdir(parents=True)
    logs = ReplicaLogs(tmp_path, tmp_path / "models")
    logs.follow({7: "chat"})
    (session / "worker-abc-01-7.err").write_text("Initializing a V1 LLM engine\n")
    logs.follow({7: "chat"})
    (session / "worker-abc-01-7.out").write_text("Warming up the replica\n")
    (session / "worker-abc-01-77.out").write_text("another process\n")
    logs.follow({7: "chat"})
    path = logs.path_of("chat")
    assert path.read_text() == "Initializing a V1 LLM engine\nWarming up the replica\n"
    assert path.stat().st_mode & 0o777 == 0o600
    progress = logs.progress_of(7)
    assert progress is not None and progress.phase == "warming_up"
    logs.follow({})
    assert logs.progress_of(7) is None


def test_a_models_log_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_logs, "MAX_BYTES", 10)
    (tmp_path / "session_2026" / "logs").mkdir(parents=True)
    output = tmp_path / "session_2026" / "logs" / "worker-a-7.out"
    logs = ReplicaLogs(tmp_path, tmp_path / "models")
    for _ in range(3):
        with output.open("a") as file:
            file.write("twelve bytes")
        logs.follow({7: "chat"})
    assert logs.path_of("chat").read_text() == "twelve bytes"
    assert logs.path_of("chat").with_name("chat.log.1").read_text() == "twelve bytes"
