"""POST /v1/chat/completions."""

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.protocol.answers import AnswerContext
from quarterdeck.simulator.protocol.chat_answer import ChatAnswerWriter
from quarterdeck.simulator.protocol.prepared_request import prepare_chat
from quarterdeck.simulator.protocol.requests import ChatRequest
from quarterdeck.simulator.protocol.validation import check_chat, check_sampling
from quarterdeck.simulator.routes.execution import generate, receive, response_id
from quarterdeck.simulator.scheduling.decoding import Decoding


async def create_chat_completion(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, ChatRequest)
    check_sampling(request)
    check_chat(request)
    hosted = engine.hosted_model(request.model, "generate")
    prepared = prepare_chat(request, engine.config, hosted)
    decoding = Decoding(engine, prepared.engine_request)
    context = AnswerContext(response_id(connection, "chatcmpl"), hosted.name, decoding.reported_cached_tokens, faults)
    writer = ChatAnswerWriter(request, prepared, context)
    await generate(connection, engine, decoding, writer, faults, is_streaming=bool(request.stream))
