"""`/v1/audio/…` and `/v1/images/…`: transcriptions, translations and speech; images, edits and variations.

Passed through to engines of models that serve them (`models[].serves`); where none does, a 501.
"""

from collections.abc import Awaitable, Callable

from quarterdeck.gateway.http.multipart import read_whole_form
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.routes.inference import NAMING, pipeline_head
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.inference.media_calls.capability import check_served
from quarterdeck.inference.media_calls.pipeline import SPEECH_TO_TEXT, MediaPipeline
from quarterdeck.inference.media_calls.request import FormBody, JsonBody, MediaRequest, word_of
from quarterdeck.protocol import media_requests
from quarterdeck.protocol.forms import with_fields
from quarterdeck.protocol.requests import BOM, with_model

JSON = {
    Operation.AUDIO_SPEECH: media_requests.speech_facts,
    Operation.IMAGES_GENERATIONS: media_requests.image_facts,
}
FORMS = {
    Operation.AUDIO_TRANSCRIPTIONS: media_requests.transcription_facts,
    Operation.AUDIO_TRANSLATIONS: media_requests.transcription_facts,
    Operation.IMAGES_EDITS: media_requests.picture_facts,
    Operation.IMAGES_VARIATIONS: media_requests.picture_facts,
}


def routes(pipeline: MediaPipeline) -> list[Route]:
    made = []
    for prefix in ("/v1", *NAMING):
        for operation in (*JSON, *FORMS):
            path = prefix + operation.path.removeprefix("/v1")
            if operation in JSON:
                made.append(Route.buffered(path, _json(pipeline, operation)))
            else:
                made.append(Route.buffered(path, _form(pipeline, operation), takes_media=True))
    return made


def _json(pipeline: MediaPipeline, operation: Operation) -> Callable[[RequestHead, bytes], Awaitable[Reply]]:
    async def call(head: RequestHead, body: bytes) -> Reply:
        check_served(pipeline.directory, word_of(operation))
        if (name := _named(head)) is not None:
            body = with_model(body.removeprefix(BOM), name)
        facts, members = JSON[operation](body)
        media_requests.check_urls(members, pipeline.is_allowed_url)
        return await pipeline.call(pipeline_head(head, operation), MediaRequest(operation, facts, JsonBody(members)))

    return call


def _form(pipeline: MediaPipeline, operation: Operation) -> Callable[[RequestHead, bytes], Awaitable[Reply]]:
    async def call(head: RequestHead, body: bytes) -> Reply:
        check_served(pipeline.directory, word_of(operation))
        parts = await read_whole_form(body, head.header(b"content-type"))
        if (name := _named(head)) is not None:
            parts = with_fields(parts, {"model": name})
        facts = FORMS[operation](parts)
        media_requests.check_form_urls(parts, pipeline.is_allowed_url)
        form = FormBody(parts, is_transcript_stream=facts.is_streaming and operation in SPEECH_TO_TEXT)
        return await pipeline.call(pipeline_head(head, operation), MediaRequest(operation, facts, form))

    return call


def _named(head: RequestHead) -> str | None:
    """The model that the path names, as at Azure. None: the body does."""
    return head.parameters.get("name") if head.parameters else None
