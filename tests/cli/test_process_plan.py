"""The processes of the platform and how they are started."""

from pathlib import Path

from quarterdeck.cli import process_plan, state
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import parse
from quarterdeck.settings.shutdown import (
    CANCEL_SECONDS,
    CLOSE_SECONDS,
    FLUSH_SECONDS,
    SERVER_SECONDS,
    WORK_SECONDS,
)

CONFIG = """
models:
  - name: chatty
    engine: {source: "packaged:smollm2-135m-instruct"}
  - name: vectors
    engine: {source: "./somewhere", task: embed}
  - name: elsewhere
    endpoints: [{url: "http://10.0.0.7:8000"}]
"""


def planned(kind: process_plan.EngineKind) -> process_plan.ProcessPlan:
    environment = Environment.read({"QUARTERDECK_STATE": "/s", "HOME": "/h", "QUARTERDECK_ENGINE_URL": "http://e:1"})
    pythons = process_plan.Interpreters(Path("/core/python"), Path("/engine/python"))
    return process_plan.make_plan(environment, parse(CONFIG), Path("/c.yaml"), kind, pythons, None)


def test_the_real_engine_runs_in_its_own_environment() -> None:
    engine = planned("vllm").engine
    assert engine is not None
    assert engine.argv == ("/engine/python", "-m", "quarterdeck.engine")
    assert engine.environ["QUARTERDECK_ENGINE_URL"] == "http://127.0.0.1:8011"
    assert engine.environ["QUARTERDECK_CONFIG"] == "/c.yaml"


def test_the_simulated_engine_follows_the_configuration() -> None:
    engine = planned("sim").engine
    assert engine is not None
    assert engine.argv[-1] == "--follow-config"


def test_an_engine_runs_without_models_where_its_environment_exists() -> None:
    environment = Environment.read({"QUARTERDECK_STATE": "/s", "HOME": "/h"})
    config = parse("models: []")
    for has_engine in (True, False):
        pythons = process_plan.Interpreters(Path("/core/python"), Path("/engine/python"), has_engine)
        plan = process_plan.make_plan(environment, config, Path("/c.yaml"), "vllm", pythons, None)
        assert (plan.engine is not None) is has_engine


def test_without_an_engine_the_users_own_engine_is_kept() -> None:
    plan = planned("none")
    assert plan.engine is None
    assert plan.gateway.environ["QUARTERDECK_ENGINE_URL"] == "http://e:1"


def test_a_gateway_is_not_killed_before_its_shutdown_can_have_ended() -> None:
    drained = 30 + CANCEL_SECONDS + SERVER_SECONDS  # drain_seconds is 30
    assert planned("sim").gateway.grace_s >= drained + FLUSH_SECONDS + CLOSE_SECONDS
    assert WORK_SECONDS < FLUSH_SECONDS


def test_only_packaged_models_are_prepared_and_only_generating_ones_make_it_usable() -> None:
    assert process_plan.packaged_models(parse(CONFIG)) == ["smollm2-135m-instruct"]
    assert process_plan.chat_models(parse(CONFIG)) == ["chatty", "elsewhere"]


def test_every_process_of_a_run_carries_its_mark() -> None:
    plan = planned("vllm")
    assert plan.engine is not None
    marks = {spec.environ[state.RUN_VARIABLE] for spec in (plan.engine, plan.worker, plan.gateway)}
    assert marks == {state.run_id(Path("/s"))}


def test_a_trace_backend_runs_beside_and_every_process_knows_it() -> None:
    environment = Environment.read({"QUARTERDECK_STATE": "/s", "HOME": "/h", "PHOENIX_WORKING_DIR": "/mine"})
    pythons = process_plan.Interpreters(Path("/core/python"), Path("/engine/python"))
    backend = process_plan.TraceBackend(Path("/phoenix/python"), 6007, 40001)
    plan = process_plan.make_plan(environment, parse(CONFIG), Path("/c.yaml"), "sim", pythons, None, backend)
    assert plan.traces is not None
    assert plan.traces.argv == ("/phoenix/python", "-m", "phoenix.server.main", "serve")
    assert plan.traces.environ["PHOENIX_WORKING_DIR"] == "/s/phoenix"
    assert plan.traces.environ["PHOENIX_TELEMETRY_ENABLED"] == "false"
    assert plan.traces.shows == "traces at http://127.0.0.1:6007"
    assert plan.worker.environ["PHOENIX_COLLECTOR_ENDPOINT"] == "http://127.0.0.1:6007"
    assert process_plan.ports(environment, plan)["PHOENIX_PORT"] == ("127.0.0.1", 6007)
    assert planned("sim").traces is None
