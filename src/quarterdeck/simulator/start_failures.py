"""Failures at the start: exit codes and texts of vLLM 0.29, for tests of what watches an engine.

Errors of vLLM's API server are the last lines of its log. Errors of the engine core are followed by a long stack trace
of the API server, and are lines of the container's termination log where the platform's logging configuration is used
(`operator/engine_logging.py`); so they are here. `{model}` in a text is the model's name.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

TERMINATION_LOG = "/dev/termination-log"
LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""The container's memory limit: cgroup v2, v1."""
UNLIMITED_BYTES = 1 << 50
"""A limit above it is none."""
STEP_BYTES = 16 << 20
"""Allocated at once by `out-of-memory`."""

_TRACE = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "vllm/entrypoints/openai/api_server.py", line 24, in <module>
    run_server(args)
"""
_CORE_TRACE = f"""\
{_TRACE}\
  File "vllm/v1/engine/utils.py", line 1320, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{'EngineCore': 1}}
"""


@dataclass(frozen=True, slots=True)
class StartFailure:
    """How a process ends. `cause` is what the engine core says, `output` what the API server does."""

    output: str = ""
    cause: str = ""
    exit_code: int = 1
    unless: str = ""
    """An environment variable with which it does not fail."""


def _server(text: str, *, exit_code: int = 1, unless: str = "") -> StartFailure:
    return StartFailure(_TRACE + text, "", exit_code, unless)


def _core(text: str) -> StartFailure:
    return StartFailure(_CORE_TRACE, f"EngineCore failed to start. {text}")


def _argument(text: str) -> StartFailure:
    return StartFailure(f"usage: vllm serve [model_tag] [options]\nvllm serve: error: {text}", exit_code=2)


FAILURES: Mapping[str, StartFailure] = MappingProxyType(
    {
        "model-not-found": _server(
            "OSError: {model} is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'\nIf this is a private repository, make sure to pass a token having "
            "permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`"
        ),
        "revision-not-found": _server(
            "OSError: v9 is not a valid git identifier (branch name, tag name or commit id) that exists for this model "
            "name. Check the model page at 'https://huggingface.co/{model}' for available revisions."
        ),
        "gated": _server(
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
            "https://huggingface.co/{model}.\n401 Client Error. (Request ID: Root=1-1)\n\nCannot access gated repo for "
            "url https://huggingface.co/{model}/resolve/main/config.json.\nAccess to model {model} is restricted. You "
            "must have access to it and be authenticated to access it. Please log in.",
            unless="HF_TOKEN",
        ),
        "hub-unreachable": _server(
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
            "cached files.\nCheck your internet connection or see how to run the library in offline mode at "
            "'https://huggingface.co/docs/transformers/installation#offline-mode'."
        ),
        "disk-full": _server("OSError: [Errno 28] No space left on device: '/cache/huggingface/hub/tmp1'"),
        "unsupported-architecture": _server(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, Model "
            "architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures: dict_keys([…]) "
            "[type=value_error, input_value=ArgsKwargs((), …), input_type=ArgsKwargs]\n"
            "    For further information visit https://errors.pydantic.dev/2.14/v/value_error"
        ),
        "damaged-weights": _core(
            "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"
        ),
        "invalid-argument": _argument("unrecognized arguments: --no-such-flag"),
        "context-too-long": _server(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, "
            "User-specified max_model_len (100000) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json). "
            "[type=value_error, input_value=ArgsKwargs((), …), input_type=ArgsKwargs]"
        ),
        "accelerator-out-of-memory": _core(
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 "
            "GiB of "
            "which 1.12 GiB is free."
        ),
        "kv-cache-too-small": _core(
            "ValueError: To serve at least one request with the model's max seq len (2048), (0.09 GiB KV cache is "
            "needed, "
            "which is larger than the available KV cache memory (0.01 GiB). Based on the available memory, the "
            "estimated "
            "maximum model length is 128. Try increasing `gpu_memory_utilization` (which also controls CPU memory on "
            "the "
            "CPU backend) or decreasing `max_model_len` when initializing the engine."
        ),
        "adapter-rank": _core("ValueError: LoRA rank 64 is greater than max_lora_rank 16."),
        "no-device": _server(
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` "
            "to turn on verbose logging to help debug the issue."
        ),
        "crash": _server("ZeroDivisionError: division by zero"),
        "killed": StartFailure(exit_code=-signal.SIGKILL),
        "segmentation-fault": StartFailure(exit_code=-signal.SIGSEGV),
        "out-of-memory": StartFailure(),
        "hang": StartFailure(),
    }
)
"""By the names of the option `fail-start`."""


def fail_start(name: str, model: str, *, termination_log: str = TERMINATION_LOG) -> int:
    """Play the failure: write its texts and return the exit code, or end by a signal. 0: it does not fail."""
    failure = FAILURES[name]
    if failure.unless and os.environ.get(failure.unless):
        return 0
    if failure.cause:
        _write_cause(failure.cause, termination_log)
    print(f"{failure.cause}\n{failure.output}".strip().replace("{model}", model), file=sys.stderr, flush=True)
    if name == "out-of-memory":
        _allocate()
    if name == "hang":
        while True:
            time.sleep(3600)
    if failure.exit_code < 0:
        # PID 1 of a container ignores signals that it sends to itself: a shell's exit code stands for them.
        os._exit(128 - failure.exit_code)
    return failure.exit_code


def _write_cause(cause: str, termination_log: str) -> None:
    # Never created: outside of a pod there is none.
    if Path(termination_log).exists():
        with open(termination_log, "a", encoding="utf-8") as file:
            file.write(f"{cause}\n")


def _allocate() -> None:
    """Use memory until the kernel ends the process. Without a limit that would end others: exit as if killed."""
    if not has_memory_limit(LIMIT_FILES):
        os._exit(128 + signal.SIGKILL)
    held = []
    while True:
        held.append(bytearray(b"\1" * STEP_BYTES))


def has_memory_limit(files: Iterable[str]) -> bool:
    """Whether one of the files has a limit."""
    for name in files:
        try:
            limit = Path(name).read_text().strip()
        except OSError:
            continue
        return limit.isdigit() and int(limit) < UNLIMITED_BYTES
    return False
