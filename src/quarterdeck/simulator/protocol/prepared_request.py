"""Turns a chat or completion request into an engine request: the prompt's tokens, and the outputs. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import HostedModel
from quarterdeck.simulator.errors import context_too_long, invalid_request
from quarterdeck.simulator.model.chat_template import last_user_text, render, text_of
from quarterdeck.simulator.model.constrained_output import constrained_text
from quarterdeck.simulator.model.stop_conditions import CompletionOutput, StopConditions, generate_output
from quarterdeck.simulator.model.text_generator import END_OF_TEXT, generate_tokens, replay_tokens, seed_of
from quarterdeck.simulator.model.tokenizer import pieces_of, split
from quarterdeck.simulator.protocol.requests import ChatRequest, CompletionRequest, Sampling, stop_strings
from quarterdeck.simulator.protocol.tool_calls import ToolCall, generated_text, requested_tool_calls
from quarterdeck.simulator.scheduling.engine_request import EngineRequest


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """An engine request, the prompts as text, and the tools that the outputs call."""

    engine_request: EngineRequest
    texts: list[str]
    tool_calls: Sequence[ToolCall] = ()


def prepare_chat(request: ChatRequest, config: SimulatorConfig, hosted: HostedModel) -> PreparedRequest:
    """Raises VLLMError where vLLM rejects the request."""
    prompt = render(
        request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
    )
    pieces = split(prompt)
    max_tokens = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    conditions = stop_conditions_of(request, completion_limit(config, len(pieces), max_tokens))
    before, prefix = prompt, ""
    if request.continue_final_message and request.messages[-1]["role"] == "assistant":
        prefix = text_of(request.messages[-1].get("content"))
        before = render(request.messages[:-1], tools=request.tools)
    calls = requested_tool_calls(request, config.enable_auto_tool_choice)
    outputs = []
    for index in range(request.n or 1):
        start = seed_of(config.seed, hosted.weights, request.seed, index)
        if calls:
            source = replay_tokens(generated_text(calls, start), repeat=False)
        else:
            echoed = last_user_text(request.messages[:-1] if prefix else request.messages)
            source = token_source(request, config, before, echoed, start)
        if prefix:
            source = continue_after(source, prefix, before, start)
        outputs.append(generate_output(source, conditions))
    engine_request = EngineRequest(
        [pieces], outputs, len(outputs), conditions.max_tokens, hosted.adapter, request.cache_salt
    )
    return PreparedRequest(engine_request, [prompt], calls)


def prepare_completion(request: CompletionRequest, config: SimulatorConfig, hosted: HostedModel) -> PreparedRequest:
    """Raises VLLMError where vLLM rejects the request."""
    texts, prompts = prompts_of(request.prompt)
    outputs: list[CompletionOutput] = []
    most = 0
    for text, pieces in zip(texts, prompts, strict=True):
        if request.echo and request.max_tokens == 0:
            outputs.extend(CompletionOutput([], "length") for _ in range(request.n or 1))
            continue
        conditions = stop_conditions_of(request, completion_limit(config, len(pieces), request.max_tokens))
        most = max(most, conditions.max_tokens)
        for index in range(request.n or 1):
            start = seed_of(config.seed, hosted.weights, request.seed, index)
            outputs.append(generate_output(token_source(request, config, text, text, start), conditions))
    return PreparedRequest(
        EngineRequest(prompts, outputs, request.n or 1, most, hosted.adapter, request.cache_salt), texts
    )


def prompts_of(prompt: str | list[Any]) -> tuple[list[str], list[list[str]]]:
    """Return the texts and tokens of a prompt: a text, a list of tokens, or a list of either. Raises VLLMError."""
    if isinstance(prompt, str):
        each: list[Any] = [prompt]
    elif prompt and all(type(token) is int for token in prompt):
        each = [prompt]
    else:
        each = list(prompt)
    texts: list[str] = []
    pieces: list[list[str]] = []
    for one in each:
        if isinstance(one, str):
            texts.append(one)
            pieces.append(split(one))
        elif isinstance(one, list) and all(type(token) is int and token >= 0 for token in one):
            pieces.append(pieces_of(one))
            texts.append("".join(pieces[-1]))
        else:
            raise invalid_request(
                "prompt must be a string, a list of strings, a list of tokens, or a list of those", "prompt"
            )
    if not each or not all(pieces):
        raise invalid_request("The decoder prompt cannot be empty")
    return texts, pieces


def completion_limit(config: SimulatorConfig, prompt_tokens: int, max_tokens: int | None) -> int:
    """Return how many tokens may be generated. Raises VLLMError if prompt and output exceed the context."""
    if max_tokens is not None and max_tokens < 1:
        raise invalid_request(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens")
    left = config.max_model_len - prompt_tokens
    if left < (1 if max_tokens is None else max_tokens):
        raise context_too_long(config.max_model_len, max_tokens or 0, prompt_tokens)
    return left if max_tokens is None else max_tokens


def stop_conditions_of(request: Sampling, max_tokens: int) -> StopConditions:
    if request.min_tokens > max_tokens:
        raise invalid_request(
            f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {request.min_tokens}."
        )
    return StopConditions(
        max_tokens,
        request.min_tokens,
        request.ignore_eos,
        stop_strings(request),
        frozenset(request.stop_token_ids or ()),
        request.include_stop_str_in_output,
    )


def token_source(request: Sampling, config: SimulatorConfig, before: str, echoed: str, start: int) -> Iterator[str]:
    """Yield the tokens that the model would generate without stop conditions."""
    constrained = constrained_text(request.response_format, request.structured_outputs, start ^ seed_of(before))
    if constrained is not None:
        return replay_tokens(constrained, repeat=False)
    if config.mode == "echo":
        return replay_tokens(echoed, repeat=True)
    return generate_tokens(before, start)


def continue_after(source: Iterator[str], prefix: str, before: str, start: int) -> Iterator[str]:
    """Yield the rest of the source after `prefix`; if the source starts otherwise, tokens that follow `prefix`."""
    left, ends = prefix, 0
    for piece in source:
        if not left:
            yield piece
            yield from source
            return
        if piece == END_OF_TEXT:  # with ignore_eos the prefix may extend beyond an end of text
            ends += 1
            if ends > 1:
                break
            continue
        ends = 0
        if left.startswith(piece):
            left = left[len(piece) :]
        elif piece.startswith(left):
            yield piece[len(left) :]
            yield from source
            return
        else:
            break
    yield from generate_tokens(before + prefix, start)
