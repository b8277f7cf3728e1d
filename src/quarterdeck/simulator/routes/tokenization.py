"""POST /tokenize and /detokenize."""

from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.model.chat_template import render
from quarterdeck.simulator.model.tokenizer import decode, split, token_id
from quarterdeck.simulator.protocol.requests import ChatRequest, DetokenizeRequest, TokenizeRequest
from quarterdeck.simulator.protocol.validation import check_chat
from quarterdeck.simulator.routes.delivery import send
from quarterdeck.simulator.routes.execution import receive


async def tokenize(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, TokenizeRequest)
    engine.hosted_model(request.model, "")
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
        raise invalid_request("either prompt or messages must be given", "prompt")
    pieces = split(text)
    body = {
        "count": len(pieces),
        "max_model_len": engine.config.max_model_len,
        "tokens": [token_id(piece) for piece in pieces],
        "token_strs": pieces if request.return_token_strs else None,
    }
    await send(connection, engine, encode(body), faults)


async def detokenize(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, DetokenizeRequest)
    engine.hosted_model(request.model, "")
    if any(token < 0 for token in request.tokens):
        raise invalid_request("tokens must not be negative", "body.tokens")
    await send(connection, engine, encode({"prompt": decode(request.tokens)}), faults)
