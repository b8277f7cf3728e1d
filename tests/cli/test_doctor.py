"""`quarterdeck doctor`: its checks."""

from pathlib import Path

from click.testing import CliRunner

from quarterdeck.cli import detached, doctor, state, status
from quarterdeck.settings.environment import Environment


def test_doctor_knows_what_each_processor_computes_in() -> None:
    assert "bfloat16" in doctor.arithmetic(frozenset({"avx2", "avx512_bf16"})).what
    assert "float32" in doctor.arithmetic(frozenset({"avx2"})).what
    assert doctor.arithmetic(frozenset()).mark == "missing"


def test_doctor_says_how_to_get_what_is_missing() -> None:
    assert doctor.room("memory", 4, 8, "buy some") == doctor.Finding("missing", "memory: 4 GiB", "buy some")
    assert doctor.python_version((3, 10)).mark == "missing"
    assert doctor.python_version((3, 11)).mark == "ok"


def test_doctor_tells_how_many_connections_the_descriptors_allow() -> None:
    few, many = doctor.descriptors(1024), doctor.descriptors(65536)
    assert (few.mark, many.mark, doctor.descriptors(-1).mark) == ("note", "ok", "ok")
    assert few.what == "file descriptors: 1024, so at most 472 connections of clients" and "ulimit" in few.how


def test_a_running_simulator_needs_no_engine_environment(tmp_path: Path) -> None:
    paths = {"QUARTERDECK_STATE": str(tmp_path), "QUARTERDECK_CACHE": str(tmp_path / "cache")}
    environment = Environment.read(paths | {"QUARTERDECK_ENGINE_PYTHON": str(tmp_path / "none")})
    detached.keep_options(["--engine", "sim"], tmp_path)
    assert doctor.runs_simulator(tmp_path) is False
    with state.locked(tmp_path):
        assert doctor.runs_simulator(tmp_path) is True
        engine = next(finding for finding in doctor.check_all(environment) if "engine environment" in finding.what)
        detached.keep_options(["--engine", "vllm"], tmp_path)
        assert doctor.runs_simulator(tmp_path) is False
    assert engine.mark == "note"
    assert doctor.environments(environment, is_simulated=False).mark == "missing"


def test_service_links_of_kubernetes_stop_no_command(tmp_path: Path) -> None:
    """`QUARTERDECK_PORT=tcp://…`, in every pod beside a Service that is named quarterdeck."""
    names = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    variables = dict.fromkeys(names, "tcp://10.96.12.7:80") | {"QUARTERDECK_STATE": str(tmp_path)}
    findings = [finding.what for finding in doctor.check_all(Environment.read(variables))]
    assert [name for name in names if any(text.startswith(f"{name}=tcp://") for text in findings)] == list(names)
    shown = CliRunner().invoke(status.command, env=variables)
    assert shown.exit_code in (0, 1, 3)
    assert "QUARTERDECK_PORT=tcp://10.96.12.7:80 is a Kubernetes service link" in shown.stderr


def test_urls_that_are_not_understood_are_named(tmp_path: Path) -> None:
    variables = {
        "QUARTERDECK_STATE": str(tmp_path),
        "QUARTERDECK_REDIS_URL": "redis://:canary@h?socket_timeout=1",
        "QUARTERDECK_DATABASE_URL": "postgres://u:canary@h/db?schema=public",
    }
    shown = CliRunner().invoke(doctor.command, env=variables)
    assert shown.exit_code == 1
    assert "'socket_timeout'" in shown.output
    assert "'schema'" in shown.output
    assert "canary" not in shown.output
    variables["QUARTERDECK_REDIS_URL"] = "redis+cluster://h:7000"
    variables["QUARTERDECK_DATABASE_URL"] = "postgres://u:canary@h/db?sslmode=require&channel_binding=require"
    environment = Environment.read(variables)
    assert (doctor.redis(environment).mark, doctor.database(environment).mark) == ("note", "note")


def test_doctor_says_what_it_can_not_check(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert doctor.room("memory", doctor.memory_gib(nowhere), 8, "x").mark == "note"
    assert doctor.arithmetic(doctor.cpu_flags(nowhere)).mark == "note"
    (tmp_path / "nvidia0").touch()
    assert doctor.gpu(lambda: None, tmp_path).what == "NVIDIA GPU: unknown"
    assert doctor.gpu(lambda: None, nowhere).what == "no NVIDIA GPU: engines run on the CPU"
    assert doctor.gpu(lambda: "L4", tmp_path) == doctor.Finding("ok", "GPU: L4")


def test_doctor_does_not_vouch_for_servers_elsewhere(tmp_path: Path) -> None:
    config = tmp_path / "quarterdeck.yaml"
    config.write_text(
        "models: [{name: m, endpoints: [{url: 'http://h:1', api_key_env: NO_KEY},"
        " {url: 'http://h:2', api_key_env: KEY},"
        f" {{url: 'http://h:3', api_key_file: {tmp_path}/none}}]}}]",
        encoding="utf-8",
    )
    urls = {"QUARTERDECK_REDIS_URL": "redis://r", "QUARTERDECK_DATABASE_URL": "postgresql+asyncpg://u@d/x", "KEY": "k"}
    paths = {"QUARTERDECK_STATE": str(tmp_path / "state"), "QUARTERDECK_CONFIG": str(config)}
    found = doctor.check_all(Environment.read({**urls, **paths}))
    notes = {finding.what: finding.how for finding in found if finding.mark == "note"}
    assert {"Redis: external (QUARTERDECK_REDIS_URL)", "database: external (QUARTERDECK_DATABASE_URL)"} <= set(notes)
    assert "external endpoints: 3" in notes
    missing = [finding.how for finding in found if finding.what == "model m: no API key"]
    assert missing == ["environment variable NO_KEY is not set", f"api_key_file {tmp_path}/none can't be read"]


def test_doctor_reports_who_can_reach_the_state_folder(tmp_path: Path) -> None:
    assert doctor.state_folder(tmp_path / "none").mark == "ok"
    for mode, mark in ((0o700, "ok"), (0o755, "note"), (0o777, "missing")):
        tmp_path.chmod(mode)
        assert doctor.state_folder(tmp_path).mark == mark
    tmp_path.chmod(0o700)
