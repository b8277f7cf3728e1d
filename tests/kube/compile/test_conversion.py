from typing import Any

import pytest

from quarterdeck.kube.compile.conversion import engine_config, max_running, weights_version
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model


def model(uid: str = "u", **spec: Any) -> Model:
    return Model.parse({"metadata": {"name": "m", "uid": uid}, "spec": {"source": {"uri": "hf://org/name"}, **spec}})


def test_an_engine_block_has_what_the_spec_says() -> None:
    adapter = {"metadata": {"name": "fr"}, "spec": {"modelRef": {"name": "m"}, "source": {"uri": "org/fr"}}}
    engine = engine_config(
        model(
            quantization={"method": "bitsandbytes", "dtype": "bfloat16"},
            resources={"accelerator": "l4", "tensorParallel": 2},
            adapters={"max": 4, "maxRank": 64},
            toolParser="hermes",
            context=4096,
            engine={"args": {"enforce_eager": True}, "env": {"VLLM_X": "1"}},
        ),
        [ModelAdapter.parse(adapter)],
    )
    assert engine.source == "org/name"
    assert (engine.quantization, engine.dtype, engine.accelerator) == ("bitsandbytes", "bfloat16", "gpu")
    assert (engine.tensor_parallel, engine.max_adapters, engine.max_adapter_rank) == (2, 4, 64)
    assert [(each.name, each.source) for each in engine.adapters] == [("fr", "org/fr")]
    assert (engine.tool_parser, engine.context) == ("hermes", 4096)
    assert (engine.args, engine.env) == ({}, {}), "what only the engine needs is in no ConfigMap"


def test_automatic_quantization_is_the_checkpoints_own() -> None:
    assert engine_config(model(quantization={"method": "auto"})).quantization == "none"


@pytest.mark.parametrize(("value", "most"), [(8, 8), (0, 64), (True, 64), ("8", 64), (None, 64)])
def test_a_replica_runs_as_many_requests_as_its_argument_says(value: Any, most: int) -> None:
    assert max_running(model(engine={"args": {"max_num_seqs": value}})) == most


def test_weights_of_one_source_are_equal_whatever_else_differs() -> None:
    assert weights_version(model(uid="a", scaling={"min": 2})) == weights_version(model(uid="b", context=4096))
    others = [
        model(source={"uri": "org/other"}),
        model(source={"uri": "org/name", "revision": "v2"}),
        model(quantization={"method": "int8"}),
        model(quantization={"dtype": "float16"}),
    ]
    assert len({weights_version(each) for each in [model(), *others]}) == 5


def test_a_model_without_an_engine_has_no_weights() -> None:
    assert weights_version(Model.parse({"metadata": {"name": "m"}, "spec": {"endpoints": [{"url": "http://x"}]}})) == ""
