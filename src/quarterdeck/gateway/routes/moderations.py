"""`/v1/moderations`: inputs by OpenAI's categories, by a served classifier or a chat model that judges
(`moderations:`). The pipeline sees one `classify` request, or a chat for each input."""

import asyncio

import msgspec

from quarterdeck.errors import APIError, NotFoundError, NotServedError
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.routes.inference import Pipeline, pipeline_head
from quarterdeck.ids import RequestIds
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.protocol import moderations, requests
from quarterdeck.protocol.moderations import Input, ModerationRequest
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.settings.moderations import ModerationsConfig

AT_ONCE = 8
"""Inputs of one request that are judged at once."""
OPENAI_PREFIXES = ("omni-moderation", "text-moderation")
"""OpenAI's models: clients name them by default."""


class Moderations:
    def __init__(self, pipeline: Pipeline, config: Live[Config]) -> None:
        self._pipeline = pipeline
        self._config = config
        self._ids = RequestIds()

    async def create(self, head: RequestHead, body: bytes) -> Reply:
        config = self._config.current.moderations
        if config is None:
            raise NotServedError(
                "Moderations are not configured on this platform. The operator can set `moderations.model` to a "
                "classifier that vLLM serves, or to a chat model that judges.",
                code="moderations_not_configured",
            )
        request: ModerationRequest = requests.decode(body.removeprefix(requests.BOM), ModerationRequest)
        if request.model is not None and request.model != config.model and not _is_openais(request.model):
            raise NotFoundError(
                f"The model '{request.model[:128]}' is not a moderation model here. Leave 'model' out, or send "
                f"'{config.model}'.",
                param="model",
                code="model_not_found",
            )
        inputs = moderations.read_inputs(request, config)
        if config.labels:
            body = moderations.classify_body(request, inputs, config.model)
            reply = await self._pipeline.call(pipeline_head(head, Operation.CLASSIFY), body)
            try:
                scores = moderations.scores_of_classes(reply.body, len(inputs), config.labels)
            except APIError:
                await reply.discard()
                raise
        else:
            reply, scores = await self._judge(head, request, inputs, config)
        id = "modr-" + head.request_id.removeprefix("req_")
        made = moderations.moderation_object(id, request.model or config.model, inputs, scores, config.threshold)
        reply.body = msgspec.json.encode(made)
        return reply

    async def _judge(
        self, head: RequestHead, request: ModerationRequest, inputs: list[Input], config: ModerationsConfig
    ) -> tuple[Reply, list[dict[str, float]]]:
        """A chat for each input; the first failure ends the others. The reply is that of the first."""
        places = asyncio.Semaphore(AT_ONCE)
        first = pipeline_head(head, Operation.CHAT)

        async def judge(at: int, given: Input) -> tuple[Reply, dict[str, float]]:
            async with places:
                own: Head = first if at == 0 else msgspec.structs.replace(first, request_id=self._ids.next())
                reply = await self._pipeline.call(own, moderations.judge_body(request, given, config.model))
                return reply, moderations.scores_of_judgement(reply.body)

        tasks = [asyncio.ensure_future(judge(at, given)) for at, given in enumerate(inputs)]
        try:
            judged = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return judged[0][0], [scores for _, scores in judged]


def routes(pipeline: Pipeline, config: Live[Config]) -> list[Route]:
    return [Route.buffered("/v1/moderations", Moderations(pipeline, config).create, takes_media=True)]


def _is_openais(model: str) -> bool:
    return model.startswith(OPENAI_PREFIXES)
