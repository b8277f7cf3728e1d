"""Which engines an offline run starts, by the configuration of its lines' model."""

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.engine.machine import Machine
from quarterdeck.engine.offline.engines import EngineChoiceError, Engines, choose, find_model
from quarterdeck.settings.loading import parse

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
CONFIG = parse("""
models:
  - name: chat
    aliases: [gpt-4o]
    engine:
      source: ./chat
      context: 512
      max_adapters: 1
      adapters: [{name: loud, source: ./loud}]
      args: {max_num_seqs: 7}
  - name: emb
    engine: {source: ./emb, task: embed}
  - name: hosted
    endpoints: [{url: "http://unused"}]
""")
CPU = Machine(frozenset({"avx2"}), (0, 1), 0, has_gpu_engine=False)
GPUS = Machine(frozenset({"avx2"}), tuple(range(32)), 4, has_gpu_engine=True)


@pytest.mark.parametrize("name", ["chat", "gpt-4o", "loud"])
def test_a_model_is_found_by_name_alias_and_adapter(name: str) -> None:
    model, engine = find_model(CONFIG.models, name, CHAT)
    assert (model.name, engine.context) == ("chat", 512)


@pytest.mark.parametrize(
    ("name", "endpoint", "reason"),
    [
        ("other", CHAT, "engines for: chat, emb"),
        ("hosted", CHAT, "no engine for the model 'hosted'"),
        ("emb", CHAT, "does not serve"),
        ("chat", EMBEDDINGS, "does not serve"),
    ],
)
def test_a_model_that_can_not_execute_the_lines_is_refused(name: str, endpoint: str, reason: str) -> None:
    with pytest.raises(EngineChoiceError, match=reason):
        find_model(CONFIG.models, name, endpoint)


def chosen(folder: Path, name: str, machine: Machine, kind: Any = "vllm", replicas: int | None = None) -> Engines:
    (folder / "chat").mkdir()
    (folder / "chat" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    model, engine = find_model(CONFIG.models, name, CHAT)
    return choose(
        kind,
        model,
        engine,
        name,
        machine,
        base=folder,
        cache=folder / "cache",
        thread_binding=None,
        replicas=replicas,
        simulator_words=("--inter-token-latency", "5ms"),
        report=lambda text: None,
    )


def test_vllm_gets_the_arguments_that_the_engine_door_would_give_it(tmp_path: Path) -> None:
    found = chosen(tmp_path, "loud", CPU)
    words = found.command.words
    for option, value in (
        ("--model", str(tmp_path / "chat")),
        ("--max-model-len", "512"),
        ("--max-num-seqs", "7"),
        ("--dtype", "float32"),
        ("--lora-modules", f"loud={tmp_path / 'loud'}"),
    ):
        assert words[words.index(option) + 1] == value
    assert words[words.index("--served-model-name") + 1 :][:2] == ("chat", "gpt-4o")
    assert (found.replicas, found.requests, found.gpus) == (1, 7, 0)
    assert found.command.environ["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"


def test_there_are_as_many_engines_as_there_are_gpus_for(tmp_path: Path) -> None:
    found = chosen(tmp_path, "chat", GPUS)
    assert (found.replicas, found.gpus) == (4, 1)
    assert "--lora-modules" not in found.command.words


def test_the_simulator_stands_in_vllms_place(tmp_path: Path) -> None:
    found = chosen(tmp_path, "gpt-4o", CPU, "sim", replicas=3)
    assert found.command.words[1:4] == ("quarterdeck.simulator", "--model", "gpt-4o")
    assert found.command.words[-2:] == ("--inter-token-latency", "5ms")
    assert found.replicas == 3
