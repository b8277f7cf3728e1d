"""Causes in real output: fixtures/engine_output is what vLLM 0.29 on a CPU left in a pod's termination message."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.engine_errors import MAX_LINE, explain

OUTPUT = Path(__file__).parent.parent / "fixtures" / "engine_output"

EXPECTED = {
    "badarch": (Reason.INVALID_SOURCE, "has model type `nosuch`"),
    "badarg": (Reason.INVALID_ENGINE_ARGUMENT, "unrecognized arguments: --no-such-flag"),
    "baddtype": (Reason.INVALID_ENGINE_ARGUMENT, "argument --dtype: invalid choice: 'foo'"),
    "badparser": (Reason.INVALID_ENGINE_ARGUMENT, "invalid tool call parser: nosuch"),
    "badquant": (Reason.INVALID_ENGINE_ARGUMENT, "Unknown quantization method: foo."),
    "badtemplate": (Reason.INVALID_ENGINE_ARGUMENT, "/nope.jinja"),
    "badtoken": (Reason.HUB_UNAUTHORIZED, "401 Unauthorized"),
    "badvalue": (Reason.INVALID_ENGINE_ARGUMENT, "argument --max-model-len"),
    "badweights.termination": (Reason.INVALID_SOURCE, "Error while deserializing header"),
    "emptyrepo": (Reason.SOURCE_NOT_FOUND, "'acme/other'"),
    "forbidden": (Reason.HUB_UNAUTHORIZED, "Access to model acme/forbidden is restricted"),
    "gated": (Reason.HUB_UNAUTHORIZED, "Access to model acme/gated is restricted"),
    "hub503": (Reason.HUB_UNREACHABLE, "couldn't connect to 'https://huggingface.co'"),
    "kvtoobig.termination": (Reason.ACCELERATOR_OUT_OF_MEMORY, "less than requested memory for kv (4000.0 GiB)"),
    "missing": (Reason.SOURCE_NOT_FOUND, "acme/missing is not a local folder"),
    "nodns": (Reason.HUB_UNREACHABLE, "couldn't connect to 'https://huggingface.co'"),
    "nohub": (Reason.HUB_UNREACHABLE, "couldn't connect to 'http://127.0.0.1:1'"),
    "nopath": (Reason.SOURCE_NOT_FOUND, "'/models/none'"),
    "norev": (Reason.SOURCE_NOT_FOUND, "v9 is not a valid git identifier"),
    "noweights": (None, "wait_for_engine_startup"),
    "noweights.termination": (Reason.SOURCE_NOT_FOUND, "Cannot find any model weights with `/models/noweights`"),
    "offline": (Reason.HUB_UNREACHABLE, "outgoing traffic has been disabled"),
    "smallkv.termination": (Reason.ACCELERATOR_OUT_OF_MEMORY, "KV cache"),
    "toolong": (Reason.INVALID_ENGINE_ARGUMENT, "User-specified max_model_len (100000)"),
    "tp": (Reason.INVALID_ENGINE_ARGUMENT, "must be divisible by tensor parallel size (2)"),
}


@pytest.mark.parametrize("path", sorted(OUTPUT.glob("*.txt")), ids=lambda path: path.stem)
def test_the_cause_is_found_in_an_engines_last_lines(path: Path) -> None:
    reason, words = EXPECTED[path.name.removesuffix(".txt")]
    error = explain(path.read_text())
    assert error is not None
    assert error.reason == reason
    assert words in error.line
    assert "pid=" not in error.line and "\n" not in error.line, "a restart has another pid"
    assert bool(error.hint) == (reason is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # texts of vLLM's and torch's sources that need a GPU, LoRA or a full disk
        (
            "(EngineCore pid=9) ERROR 11-30 02:29:14 [core.py:1374] torch.OutOfMemoryError: CUDA out of memory. "
            "Tried to "
            "allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.1 GiB is free.",
            Reason.ACCELERATOR_OUT_OF_MEMORY,
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.1/23.6 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 21.7 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
            "processes.",
            Reason.ACCELERATOR_OUT_OF_MEMORY,
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine.",
            Reason.ACCELERATOR_OUT_OF_MEMORY,
        ),
        ("ValueError: LoRA rank 64 is greater than max_lora_rank 16.", Reason.ADAPTER_RANK_TOO_LARGE),
        ("RuntimeError: Failed to infer device type, please set the environment variable", Reason.NO_DEVICE),
        ("RuntimeError: No CUDA GPUs are available", Reason.NO_DEVICE),
        ("OSError: [Errno 28] No space left on device: '/root/.cache/huggingface/hub/x'", Reason.DISK_FULL),
        (
            "ValueError: Model architectures ['XForCausalLM'] are not supported for now. Supported architectures: …",
            Reason.INVALID_SOURCE,
        ),
        ("vllm serve: error: unrecognized arguments: --x", Reason.INVALID_ENGINE_ARGUMENT),
        ("ValueError: World size (8) is larger than the number of available GPUs (1)", Reason.INVALID_ENGINE_ARGUMENT),
        ("httpx.HTTPStatusError: Client error '429 Too Many Requests' for url", Reason.HUB_UNREACHABLE),
    ],
)
def test_a_known_line_has_its_reason(text: str, expected: Reason) -> None:
    error = explain(
        f"INFO 11-30 02:29:14 [x.py:1] hello\n{text}\nRuntimeError: Engine core initialization failed. See root "
        f"cause above."
    )
    assert error is not None and error.reason == expected


def test_an_unknown_error_is_quoted_without_the_notes_around_it() -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\n'
    error = explain(
        f"{text}ZeroDivisionError: division by zero\nFor further information visit https://errors.pydantic.dev\n"
    )
    assert error is not None
    assert (error.reason, error.line) == (None, "ZeroDivisionError: division by zero")


def test_an_empty_log_has_no_cause() -> None:
    assert explain("") is None
    assert explain(" \n\n") is None


@given(st.text())
def test_any_text_has_a_short_line_or_none(text: str) -> None:
    error = explain(text)
    assert error is None or len(error.line) <= MAX_LINE
