"""From a request to a job: the prompt's text and tokens, where the answers come from, where they end. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Served
from quarterdeck.simulator.errors import invalid, too_long
from quarterdeck.simulator.model.chat_template import last_user_text, render, text_of
from quarterdeck.simulator.model.json_schemas import UnsatisfiableError, instance
from quarterdeck.simulator.model.regex_examples import matching
from quarterdeck.simulator.model.stop_conditions import Bounds, Written, write
from quarterdeck.simulator.model.text_generator import END, recite, seeded, sentence, speak
from quarterdeck.simulator.model.tokenizer import pieces_of, split
from quarterdeck.simulator.protocol.requests import ChatRequest, CompletionRequest, Sampling, stops
from quarterdeck.simulator.protocol.tool_calls import Call, called
from quarterdeck.simulator.scheduling.decoding import Job


@dataclass(frozen=True, slots=True)
class Asked:
    """A job, the prompts' texts, and the tool that the answers call."""

    job: Job
    texts: list[str]
    call: Call | None = None


def ask_chat(request: ChatRequest, config: SimulatorConfig, served: Served) -> Asked:
    """Raises Refusal where vLLM would."""
    prompt = render(
        request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
    )
    pieces = split(prompt)
    asked = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    bounds = bounds_of(request, room(config, len(pieces), asked))
    before, half = prompt, ""
    if request.continue_final_message and request.messages[-1]["role"] == "assistant":
        half = text_of(request.messages[-1].get("content"))
        before = render(request.messages[:-1], tools=request.tools)
    call = called(request, config.enable_auto_tool_choice)
    answers = []
    for index in range(request.n or 1):
        start = seeded(config.seed, served.voice, request.seed, index)
        if call is not None:
            source = recite(call.raw(start), repeat=False)
        else:
            echoed = last_user_text(request.messages[:-1] if half else request.messages)
            source = source_of(request, config, before, echoed, start)
        answers.append(write(go_on(source, half, before, start) if half else source, bounds))
    job = Job([pieces], answers, len(answers), bounds.max_tokens, served.adapter, request.cache_salt)
    return Asked(job, [prompt], call)


def ask_completion(request: CompletionRequest, config: SimulatorConfig, served: Served) -> Asked:
    """Raises Refusal where vLLM would."""
    texts, prompts = prompts_of(request.prompt)
    answers: list[Written] = []
    most = 0
    for text, pieces in zip(texts, prompts, strict=True):
        if request.echo and request.max_tokens == 0:
            answers.extend(Written([], "length") for _ in range(request.n or 1))
            continue
        bounds = bounds_of(request, room(config, len(pieces), request.max_tokens))
        most = max(most, bounds.max_tokens)
        for index in range(request.n or 1):
            start = seeded(config.seed, served.voice, request.seed, index)
            answers.append(write(source_of(request, config, text, text, start), bounds))
    return Asked(Job(prompts, answers, request.n or 1, most, served.adapter, request.cache_salt), texts)


def prompts_of(prompt: str | list[Any]) -> tuple[list[str], list[list[str]]]:
    """A prompt's texts and tokens: a text, tokens, or a list of either. Raises Refusal."""
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
            raise invalid("prompt must be a string, a list of strings, a list of tokens, or a list of those", "prompt")
    if not each or not all(pieces):
        raise invalid("The decoder prompt cannot be empty")
    return texts, pieces


def room(config: SimulatorConfig, prompt_tokens: int, asked: int | None) -> int:
    """How many tokens the answer may have. Raises Refusal where prompt and answer don't fit the context."""
    if asked is not None and asked < 1:
        raise invalid(f"max_tokens must be at least 1, got {asked}.", "max_tokens")
    left = config.max_model_len - prompt_tokens
    if left < (1 if asked is None else asked):
        raise too_long(config.max_model_len, asked or 0, prompt_tokens)
    return left if asked is None else asked


def bounds_of(request: Sampling, max_tokens: int) -> Bounds:
    if request.min_tokens > max_tokens:
        raise invalid(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {request.min_tokens}.")
    return Bounds(
        max_tokens,
        request.min_tokens,
        request.ignore_eos,
        stops(request),
        frozenset(request.stop_token_ids or ()),
        request.include_stop_str_in_output,
    )


def source_of(request: Sampling, config: SimulatorConfig, before: str, echoed: str, start: int) -> Iterator[str]:
    """What the model would say."""
    constrained = constrained_text(request, start ^ seeded(before))
    if constrained is not None:
        return recite(constrained, repeat=False)
    if config.mode == "echo":
        return recite(echoed, repeat=True)
    return speak(before, start)


def go_on(source: Iterator[str], half: str, before: str, start: int) -> Iterator[str]:
    """The source without its beginning `half`; where it begins otherwise, what the model says after `half`."""
    left, ends = half, 0
    for piece in source:
        if not left:
            yield piece
            yield from source
            return
        if piece == END:  # the half may go on past an end (ignore_eos)
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
    yield from speak(before + half, start)


def constrained_text(request: Sampling, start: int) -> str | None:
    """The text that a response format or a structured output leaves no choice about. Raises Refusal."""
    wanted: dict[str, Any] = dict(request.structured_outputs or {})
    form = request.response_format or {}
    if form.get("type") == "json_object":
        wanted["json_object"] = True
    elif form.get("type") == "json_schema":
        wanted["json"] = form["json_schema"].get("schema") or {}
    if isinstance(wanted.get("choice"), list) and wanted["choice"]:
        return str(wanted["choice"][start % len(wanted["choice"])])
    if wanted.get("regex") is not None:
        text = matching(str(wanted["regex"]))
        if text is None:
            raise invalid(f"Failed to convert the regex to a grammar: {wanted['regex']}")
        return text
    if wanted.get("json") is not None:
        schema = wanted["json"]
        if isinstance(schema, str):
            try:
                schema = msgspec.json.decode(schema)
            except msgspec.DecodeError as error:
                raise invalid("Invalid JSON grammar specification.") from error
        return json_of(schema, start)
    if wanted.get("json_object"):
        return msgspec.json.encode({"answer": sentence(start, 3)}).decode()
    return None


def json_of(schema: Any, start: int) -> str:
    try:
        return msgspec.json.encode(instance(schema, start)).decode()
    except UnsatisfiableError as error:
        raise invalid(f"The provided JSON schema can't be satisfied: {error}", "response_format") from error
