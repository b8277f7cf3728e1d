"""POST /v1/completions."""

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.protocol.answers import AnswerContext
from quarterdeck.simulator.protocol.completion_answer import CompletionAnswerWriter
from quarterdeck.simulator.protocol.prepared_request import prepare_completion
from quarterdeck.simulator.protocol.requests import CompletionRequest
from quarterdeck.simulator.protocol.validation import check_logprobs, check_sampling
from quarterdeck.simulator.routes.execution import generate, receive, response_id
from quarterdeck.simulator.scheduling.decoding import Decoding


async def create_completion(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, CompletionRequest)
    check_sampling(request)
    if request.logprobs is not None:
        if request.logprobs < -1:
            raise invalid_request("`logprobs` must be a positive value or -1.", "logprobs")
        check_logprobs(request.logprobs)
    hosted = engine.hosted_model(request.model, "generate")
    prepared = prepare_completion(request, engine.config, hosted)
    decoding = Decoding(engine, prepared.engine_request)
    context = AnswerContext(response_id(connection, "cmpl"), hosted.name, decoding.reported_cached_tokens, faults)
    writer = CompletionAnswerWriter(request, prepared, context)
    await generate(connection, engine, decoding, writer, faults, is_streaming=bool(request.stream))
