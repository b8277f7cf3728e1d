"""POST /v1/images/generations, /v1/images/edits and /v1/images/variations, in OpenAI's form."""

import base64
import hashlib
import time
from typing import Any

from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.model import media
from quarterdeck.simulator.model.tokenizer import split
from quarterdeck.simulator.protocol.answers import event
from quarterdeck.simulator.protocol.forms import receive_form
from quarterdeck.simulator.protocol.requests import ImageRequest
from quarterdeck.simulator.routes.audio import SIMULATED, send_pieces
from quarterdeck.simulator.routes.delivery import send
from quarterdeck.simulator.routes.execution import receive

MOST_IMAGES = 10
OUTPUT_TOKENS = 100
"""Of one image."""
INPUT_TOKENS = 50
"""Of one picture of the prompt."""


async def create_image(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, ImageRequest)
    engine.hosted_model(request.model, "media")
    await _deliver(connection, engine, faults, request, request.prompt, 0)


async def edit_image(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """An edit, or a variation."""
    form = await receive_form(connection, engine.config.max_request_body_size_mb << 20)
    fields = form.fields
    engine.hosted_model(fields.get("model"), "media")
    pictures = [*form.files.get("image", ()), *form.files.get("mask", ())]
    if not pictures:
        raise invalid_request("1 validation error:\n  image: Field required", "image")
    request = ImageRequest(
        prompt=fields.get("prompt", ""),
        n=form.number("n", 1),
        size=fields.get("size"),
        stream=form.is_on("stream"),
        partial_images=form.number("partial_images", 0),
    )
    seed = request.prompt + "".join(hashlib.sha256(each).hexdigest() for each in pictures)
    await _deliver(connection, engine, faults, request, seed, len(pictures), "image_edit")


async def _deliver(
    connection: ClientConnection,
    engine: Engine,
    faults: Faults,
    request: ImageRequest,
    seed: str,
    pictures: int,
    kind: str = "image_generation",
) -> None:
    count = request.n or 1
    if not 1 <= count <= MOST_IMAGES:
        raise invalid_request(f"n must be between 1 and {MOST_IMAGES}, got {count}.", "n")
    connection.cancel_on_disconnect()
    if (pause := engine.config.time_to_first_token) > 0:
        await engine.clock.sleep(pause)
    made = [base64.b64encode(media.png(f"{seed} {at}", request.size)).decode() for at in range(count)]
    usage = {} if "no-usage" in faults else {"usage": _usage(request.prompt, pictures, count)}
    created = int(time.time())
    shown = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
    if not request.stream:
        data = [{"b64_json": each, "revised_prompt": None, "url": None} for each in made]
        await send(connection, engine, encode({"created": created, "data": data, **shown, **usage}), faults)
        return
    events = []
    for at in range(request.partial_images or 0):
        partial = {"type": f"{kind}.partial_image", "b64_json": made[0], "partial_image_index": at}
        events.append(event(encode(partial | shown | {"created_at": created})))
    for each in made:
        events.append(
            event(encode({"type": f"{kind}.completed", "b64_json": each, "created_at": created} | shown | usage))
        )
    await connection.open_stream(headers=SIMULATED)
    await send_pieces(connection, engine, faults, events)


def _usage(prompt: str, pictures: int, count: int) -> dict[str, Any]:
    text, image = len(split(prompt)), INPUT_TOKENS * pictures
    made = OUTPUT_TOKENS * count
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": made,
        "total_tokens": text + image + made,
    }
