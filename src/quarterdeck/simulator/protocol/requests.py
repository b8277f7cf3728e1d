"""Request bodies. Fields that the simulator uses are typed; others are ignored, as vLLM does."""

from typing import Any, TypeVar

import msgspec

from quarterdeck.simulator.errors import invalid_json, validation_error

T = TypeVar("T")

Prompt = str | list[Any]
"""A text, a list of tokens, or a list of either."""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that chat and completions share."""

    model: str | None = None
    n: int | None = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    ignore_eos: bool = False
    min_tokens: int = 0
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    echo: bool | None = False


class ChatRequest(Sampling, kw_only=True):
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = msgspec.UNSET
    parallel_tool_calls: bool | None = True
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    echo: bool = False
    skip_special_tokens: bool = True
    bad_words: list[str] = []
    priority: int = 0


class CompletionRequest(Sampling, kw_only=True):
    prompt: Prompt
    n: int = 1
    max_tokens: int | None = 16
    logprobs: int | None = None
    suffix: str | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    input: Prompt
    model: str | None = None
    encoding_format: str = "float"
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None


class ScoreRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    text_1: Any = None
    text_2: Any = None
    truncate_prompt_tokens: int | None = None
    queries: Any = None
    documents: Any = None
    data_1: Any = None
    data_2: Any = None


class RerankRequest(msgspec.Struct, kw_only=True):
    query: str
    documents: list[str]
    model: str | None = None
    top_n: int = 0
    truncate_prompt_tokens: int | None = None


class SpeechRequest(msgspec.Struct, kw_only=True):
    input: str
    model: str | None = None
    response_format: str | None = None
    stream_format: str | None = None


class ImageRequest(msgspec.Struct, kw_only=True):
    prompt: str = ""
    model: str | None = None
    n: int | None = 1
    size: str | None = None
    stream: bool | None = False
    partial_images: int | None = 0


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


class LoadAdapterRequest(msgspec.Struct, kw_only=True):
    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadAdapterRequest(msgspec.Struct, kw_only=True):
    lora_name: str = ""


def read(body: bytes, kind: type[T]) -> T:
    """Decode a body; numbers in strings are accepted, as pydantic does. Raises VLLMError."""
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise validation_error(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error) from error


def stop_strings(request: Sampling) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
