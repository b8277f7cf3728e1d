"""Parts of OpenAI's API that are not served: videos, realtime, and routes of audio and images that `audio_and_images`
does not have. They answer 501 with the reason, where an unknown URL would leave the caller to guess."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from quarterdeck.errors import MethodNotAllowedError, NotServedError
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import MEDIA, Reply

MAX_BYTES = 64 * 1024 * 1024
"""Of a body that is read and dropped, so that its client sees the answer instead of a broken connection."""
WHAT = {
    "audio": "This part of OpenAI's audio API",
    "images": "This part of OpenAI's image API",
    "videos": "Video generation",
    "realtime": "The Realtime API",
}

SERVED = frozenset(operation.path for operation in MEDIA)
"""By `audio_and_images`, with POST."""


def routes() -> list[Route]:
    found = []
    for name, what in WHAT.items():
        for path in (f"/v1/{name}", f"/v1/{name}/{{rest:path}}"):
            found.append(Route.streamed(path, _refusing_upload(what), max_bytes=MAX_BYTES))
            found += [Route.buffered(path, _refusing(what), method=method) for method in ("GET", "DELETE")]
    return found


def _refusing(what: str) -> Callable[[RequestHead, bytes], Awaitable[Reply]]:
    async def refuse(head: RequestHead, body: bytes) -> Reply:
        if head.path in SERVED:
            raise MethodNotAllowedError("Method not allowed.", headers={"allow": "POST"})
        _refuse(what)

    return refuse


def _refusing_upload(what: str) -> Callable[[RequestHead, BodyStream], Awaitable[Reply]]:
    async def refuse(head: RequestHead, body: BodyStream) -> Reply:
        async for _ in body:
            pass
        _refuse(what)

    return refuse


def _refuse(what: str) -> NoReturn:
    raise NotServedError(
        f"{what} is not served by this platform. Served are /v1/chat/completions, /v1/completions, /v1/responses, "
        "/v1/embeddings, /v1/moderations and /v1/rerank, and of models that do: /v1/audio/transcriptions, "
        "/v1/audio/translations, /v1/audio/speech, /v1/images/generations, /v1/images/edits and /v1/images/variations.",
    )
