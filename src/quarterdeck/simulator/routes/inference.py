"""The routes that compute: chat, completions, embeddings, scores, tokens."""

import base64
import os
import struct
import time
from typing import Any

from msgspec.json import encode

from quarterdeck.simulator.client_connection import Exchange
from quarterdeck.simulator.engine import Engine, Served
from quarterdeck.simulator.errors import invalid
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.model.chat_template import render
from quarterdeck.simulator.model.prepared_request import Asked, ask_chat, ask_completion, prompts_of, room
from quarterdeck.simulator.model.tokenizer import decode, split, token_id
from quarterdeck.simulator.model.vectors import cosine, embed
from quarterdeck.simulator.protocol.answers import Answer, ChatAnswer, CompletionAnswer, Facts
from quarterdeck.simulator.protocol.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    Sampling,
    ScoreRequest,
    T,
    TokenizeRequest,
    check_chat,
    check_logprobs,
    check_sampling,
    read,
)
from quarterdeck.simulator.protocol.usage import parse_usage
from quarterdeck.simulator.routes import delivery as answering
from quarterdeck.simulator.scheduling.decoding import Decoding, Job

MAX_DIMENSIONS = 65536


async def create_chat_completion(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, ChatRequest)
    check_sampling(request)
    check_chat(request)
    served = engine.serving(request.model, "generate")
    await generate(exchange, engine, request, served, ask_chat(request, engine.config, served), faults)


async def create_completion(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, CompletionRequest)
    check_sampling(request)
    if request.logprobs is not None:
        if request.logprobs < 0:
            raise invalid("`logprobs` must be a positive value or -1.", "logprobs")
        check_logprobs(request.logprobs)
    served = engine.serving(request.model, "generate")
    await generate(exchange, engine, request, served, ask_completion(request, engine.config, served), faults)


async def create_embedding(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, EmbeddingRequest)
    served = engine.serving(request.model, "embed")
    if request.encoding_format not in ("float", "base64"):
        raise invalid(f"Unsupported encoding format {request.encoding_format}", "encoding_format")
    dimensions = engine.config.default_embedding_dimensions if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise invalid(f"dimensions must be between 1 and {MAX_DIMENSIONS}, got {dimensions}.", "dimensions")
    texts, prompts = prompts_of(request.input)
    keep = request.truncate_prompt_tokens
    if keep is not None:
        prompts = [prompt[: engine.config.max_model_len if keep < 0 else keep] for prompt in prompts]
        texts = ["".join(prompt) for prompt in prompts]
    usage = await compute(exchange, engine, prompts, faults)
    data = []
    for index, text in enumerate(texts):
        vector = embed(text, dimensions)
        value: Any = vector
        if request.encoding_format == "base64":
            value = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"index": index, "object": "embedding", "embedding": value})
    body = {"id": identify(exchange, "embd"), "object": "list", "created": int(time.time())}
    body |= {"model": served.name, "data": data} | usage
    await answering.send(exchange, engine, encode(body), faults)


async def create_score(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, ScoreRequest)
    served = engine.serving(request.model, "embed")
    first = next((each for each in (request.text_1, request.queries, request.data_1) if each is not None), None)
    second = next((each for each in (request.text_2, request.documents, request.data_2) if each is not None), None)
    left, right = texts_of(first), texts_of(second)
    if not left or not right:
        raise invalid("queries and documents (or text_1 and text_2) must be a string or a list of strings", "queries")
    if len(left) not in (1, len(right)):
        raise invalid("Input lengths must be either 1:1, 1:N or N:N")
    pairs = list(zip(left * len(right) if len(left) == 1 else left, right, strict=True))
    usage = await compute(exchange, engine, [split(one + other) for one, other in pairs], faults)
    size = engine.config.default_embedding_dimensions
    data = [
        {"index": index, "object": "score", "score": cosine(embed(one, size), embed(other, size))}
        for index, (one, other) in enumerate(pairs)
    ]
    body = {"id": identify(exchange, "score"), "object": "list", "created": int(time.time())}
    body |= {"model": served.name, "data": data} | usage
    await answering.send(exchange, engine, encode(body), faults)


async def tokenize(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, TokenizeRequest)
    engine.serving(request.model, "")
    if request.messages is not None:
        chat = ChatRequest(
            messages=request.messages,
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
        )
        check_chat(chat)
        text = render(
            chat.messages,
            tools=chat.tools,
            add_generation_prompt=chat.add_generation_prompt,
            continue_final_message=chat.continue_final_message,
        )
    elif request.prompt is not None:
        text = request.prompt
    else:
        raise invalid("either prompt or messages must be given", "prompt")
    pieces = split(text)
    body = {
        "count": len(pieces),
        "max_model_len": engine.config.max_model_len,
        "tokens": [token_id(piece) for piece in pieces],
        "token_strs": pieces if request.return_token_strs else None,
    }
    await answering.send(exchange, engine, encode(body), faults)


async def detokenize(exchange: Exchange, engine: Engine, faults: Faults) -> None:
    request = await receive(exchange, engine, DetokenizeRequest)
    engine.serving(request.model, "")
    if any(token < 0 for token in request.tokens):
        raise invalid("tokens must not be negative", "body.tokens")
    await answering.send(exchange, engine, encode({"prompt": decode(request.tokens)}), faults)


async def receive(exchange: Exchange, engine: Engine, kind: type[T]) -> T:
    return read(await exchange.body(engine.config.max_request_body_size_mb << 20), kind)


async def generate(
    exchange: Exchange, engine: Engine, request: Sampling, served: Served, asked: Asked, faults: Faults
) -> None:
    """Compute the job and answer with it."""
    decoding = Decoding(engine, asked.job)

    def cached() -> int | None:
        return decoding.cached_tokens if engine.config.enable_prompt_tokens_details else None

    try:
        decoding.enqueue()
        exchange.watch()
        answer: Answer
        if isinstance(request, ChatRequest):
            answer = ChatAnswer(request, asked, Facts(identify(exchange, "chatcmpl"), served.name, cached, faults))
        else:
            assert isinstance(request, CompletionRequest)  # noqa: S101  (there is no third kind)
            answer = CompletionAnswer(request, asked, Facts(identify(exchange, "cmpl"), served.name, cached, faults))
        deliver = answering.stream if request.stream else answering.plain
        await deliver(exchange, engine, decoding, answer, faults)
    finally:
        decoding.close(aborted=not decoding.finished())


async def compute(exchange: Exchange, engine: Engine, prompts: list[list[str]], faults: Faults) -> dict[str, Any]:
    """The time that prompts without an answer take, and their usage."""
    for prompt in prompts:
        room(engine.config, len(prompt) - 1, None)
    job = Job(prompts, [])
    decoding = Decoding(engine, job)
    try:
        decoding.enqueue()
        exchange.watch()
        await decoding.begin()
        await decoding.advance()
    finally:
        decoding.close(aborted=not decoding.finished())
    usage = parse_usage(job.prompt_tokens, 0, None, faults)
    return {} if usage is None else {"usage": usage}


def identify(exchange: Exchange, prefix: str) -> str:
    """vLLM's ids: the caller's x-request-id goes into it."""
    return f"{prefix}-{exchange.header(b'x-request-id') or os.urandom(16).hex()}"


def texts_of(value: Any) -> list[str]:
    """A text or a list of texts; anything else is none."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []
