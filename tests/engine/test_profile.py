"""One configuration on each kind of machine: the arguments of vLLM and Ray, and the reasons of refusals."""

from typing import Any

import pytest

from quarterdeck.engine.machine import Machine, cpu_flags
from quarterdeck.engine.profile import GIB, ProfileError, make_profile, max_running
from quarterdeck.model_lifecycle.kv_cache import KVShape
from quarterdeck.settings.engine import EngineConfig

OLD = Machine(cpu_flags=frozenset({"avx2"}), cores=(0, 1), gpus=0, has_gpu_engine=False)
NEW = Machine(cpu_flags=frozenset({"avx2", "avx512_bf16"}), cores=(0, 1), gpus=0, has_gpu_engine=False)
GPUS = Machine(cpu_flags=frozenset({"avx2"}), cores=tuple(range(16)), gpus=2, has_gpu_engine=True)
GPU_AND_CPU_ENGINE = Machine(cpu_flags=frozenset({"avx2"}), cores=tuple(range(16)), gpus=1, has_gpu_engine=False)


def _engine(**fields: Any) -> EngineConfig:
    return EngineConfig.model_validate({"source": "org/model", **fields})


@pytest.mark.parametrize(
    ("fields", "machine", "expected"),
    [
        ({}, OLD, "float32"),
        ({}, NEW, "bfloat16"),
        ({"dtype": "float16"}, OLD, "float16"),
        ({"quantization": "bitsandbytes"}, OLD, "bfloat16"),
        ({"quantization": "int8"}, OLD, "bfloat16"),
        ({"task": "embed"}, NEW, "float32"),
        ({}, GPUS, "auto"),
        ({"accelerator": "cpu"}, GPUS, "float32"),
    ],
)
def test_the_type_of_the_arithmetic(fields: dict[str, Any], machine: Machine, expected: str) -> None:
    assert make_profile(_engine(**fields), machine).engine_kwargs["dtype"] == expected


@pytest.mark.parametrize(
    ("word", "machine", "method"),
    [
        ("bitsandbytes", NEW, "bitsandbytes"),
        ("int8", NEW, "int8_per_channel_weight_only"),
        ("fp8", GPUS, "fp8"),
        ("awq", GPUS, None),  # the checkpoint says it
        ("none", NEW, None),
    ],
)
def test_quantization_is_one_word(word: str, machine: Machine, method: str | None) -> None:
    assert make_profile(_engine(quantization=word), machine).engine_kwargs.get("quantization") == method


@pytest.mark.parametrize(
    ("fields", "machine", "message"),
    [
        ({"quantization": "fp8"}, NEW, "needs a GPU"),
        ({"quantization": "int8", "dtype": "float32"}, NEW, "bfloat16"),
        ({"accelerator": "gpu"}, NEW, "no GPU here"),
        ({"accelerator": "H100"}, GPU_AND_CPU_ENGINE, "vllm-cpu"),
        ({"tensor_parallel": 4}, GPUS, "4 GPUs"),
    ],
)
def test_what_the_machine_lacks_is_said_in_one_line(fields: dict[str, Any], machine: Machine, message: str) -> None:
    with pytest.raises(ProfileError, match=message) as caught:
        make_profile(_engine(**fields), machine)
    assert "\n" not in str(caught.value)


def test_emulated_bfloat16_is_noted() -> None:
    assert "bfloat16" in make_profile(_engine(quantization="bitsandbytes"), OLD).notes[0]
    assert make_profile(_engine(quantization="bitsandbytes"), NEW).notes == ()


@pytest.mark.parametrize(("accelerator", "kind"), [("auto", "gpu"), ("gpu", "gpu"), ("H100", "gpu"), ("cpu", "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(accelerator: str, kind: str) -> None:
    profile = make_profile(_engine(accelerator=accelerator), GPUS)
    assert profile.kind == kind
    assert profile.accelerator_type == ("H100" if accelerator == "H100" else None)


def test_a_gpu_that_the_installed_vllm_cannot_drive_is_left_alone() -> None:
    assert make_profile(_engine(), GPU_AND_CPU_ENGINE).kind == "cpu"


def test_both_bounds_of_requests_are_always_set() -> None:
    for machine in (NEW, GPUS):
        deployment = make_profile(_engine(), machine).deployment
        assert deployment["max_ongoing_requests"] == 64
        assert deployment["max_queued_requests"] == 256
        assert deployment["autoscaling_config"]["target_ongoing_requests"] == 16


def test_a_chat_model_on_a_processor() -> None:
    engine = _engine(source="packaged:smollm2-135m-instruct", context=2048, tool_parser="hermes", max_adapters=4)
    profile = make_profile(engine, NEW)
    assert profile.engine_kwargs == {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "max_model_len": 2048,
        "enable_prompt_tokens_details": True,
        "max_num_seqs": 64,
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
        "enable_lora": True,
        "max_loras": 4,
        "max_cpu_loras": 8,
        "max_lora_rank": 16,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "kv_cache_memory_bytes": GIB,
    }
    assert profile.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0,1",
    }


def test_an_embedding_model_is_pooled_and_small() -> None:
    kwargs = make_profile(_engine(task="embed"), NEW).engine_kwargs
    assert kwargs["runner"] == "pooling"
    assert kwargs["kv_cache_memory_bytes"] == GIB // 4
    assert "max_num_seqs" not in kwargs


def test_the_users_arguments_and_variables_win() -> None:
    engine = _engine(args={"enforce_eager": False, "max_num_seqs": 8}, env={"VLLM_CPU_OMP_THREADS_BIND": "1"})
    profile = make_profile(engine, NEW, thread_binding="0")
    assert profile.engine_kwargs["enforce_eager"] is False
    assert profile.env["VLLM_CPU_OMP_THREADS_BIND"] == "1"
    assert max_running(engine) == 8


def test_threads_are_bound_as_configured_or_to_all_of_a_small_machine() -> None:
    assert make_profile(_engine(), NEW, thread_binding="0").env["VLLM_CPU_OMP_THREADS_BIND"] == "0"
    large = Machine(cpu_flags=frozenset(), cores=tuple(range(64)), gpus=0, has_gpu_engine=False)
    assert make_profile(_engine(), large).env["VLLM_CPU_OMP_THREADS_BIND"] == "auto"


def test_features_are_read_on_x86_and_arm() -> None:
    assert cpu_flags("model name\t: x\nflags\t\t: fpu avx512_bf16\n") == {"fpu", "avx512_bf16"}
    assert cpu_flags("Features\t: fp asimd bf16\n") == {"fp", "asimd", "bf16"}
    assert cpu_flags("nothing") == frozenset()


WIDE = KVShape(elements=57_344, context=32_768)
"""As Qwen2.5-7B."""


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, 257 * 128 * 57_344 * 4),  # one request of full length
        ({"context": 1024}, GIB),
        ({"context": 1024, "kv_cache_gib": 0.5}, GIB // 2),
        ({"args": {"kv_cache_dtype": "fp8"}}, 257 * 128 * 57_344),
        ({"task": "embed"}, GIB // 4),
    ],
)
def test_the_kv_cache_of_a_cpu_holds_a_request_of_full_length(fields: dict[str, Any], size: int) -> None:
    kwargs = make_profile(_engine(**fields), OLD, kv_shape=WIDE).engine_kwargs
    assert kwargs["kv_cache_memory_bytes"] == size


def test_a_kv_cache_that_is_too_small_is_refused_with_the_context_that_it_holds() -> None:
    with pytest.raises(ProfileError, match=r"7\.03 GiB of KV cache, and kv_cache_gib is 2.*context to at most 9216"):
        make_profile(_engine(kv_cache_gib=2), OLD, kv_shape=WIDE)
    make_profile(_engine(kv_cache_gib=2, context=9216), OLD, kv_shape=WIDE)
