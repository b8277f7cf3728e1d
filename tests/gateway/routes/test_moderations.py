"""Moderations by a chat model that judges, and without a configuration."""

import json
from typing import Any

import pytest
from tests.gateway.fakes import CONFIG, Client, FakePipeline, config, parts

from quarterdeck.errors import RateLimitError
from quarterdeck.gateway.app import create_app
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.settings.moderations import CATEGORIES

JUDGED = CONFIG + "\nmoderations: {model: chat, images: true}\n"


def judgement(**scores: float) -> bytes:
    found = dict.fromkeys(CATEGORIES, 0.0) | scores
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": json.dumps(found)}}]}).encode()


class Judge:
    """Finds violence where the text has the word."""

    def __init__(self) -> None:
        self.pipeline = FakePipeline(config(JUDGED))
        self.pipeline.answer = self.answer
        self.content: str | None = None

    async def answer(self, head: Head, body: bytes) -> Reply:
        asked = json.loads(body)["messages"][-1]["content"]
        answer = judgement(violence=0.9 if "war" in json.dumps(asked) else 0.1)
        if self.content is not None:
            answer = json.dumps({"choices": [{"message": {"content": self.content}}]}).encode()
        return Reply(200, ((b"content-type", b"application/json"),), answer)

    async def ask(self, given: Any) -> Any:
        return await Client(create_app(parts(self.pipeline))).post("/v1/moderations", {"input": given})


async def test_each_input_is_judged_in_a_chat_of_its_own() -> None:
    judge = Judge()
    answer = await judge.ask(["peace", "war", "tea"])
    assert [each["flagged"] for each in answer.json["results"]] == [False, True, False]
    heads = [head for head, _ in judge.pipeline.calls]
    assert {head.operation for head in heads} == {Operation.CHAT} and len({head.request_id for head in heads}) == 3
    body = json.loads(judge.pipeline.calls[0][1])
    assert body["temperature"] == 0 and body["response_format"]["json_schema"]["strict"]


async def test_images_are_sent_to_a_judge_that_sees() -> None:
    judge = Judge()
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    answer = await judge.ask([picture])
    (result,) = answer.json["results"]
    assert result["category_applied_input_types"]["violence"] == ["image"]
    assert result["category_applied_input_types"]["hate"] == []
    assert json.loads(judge.pipeline.calls[0][1])["messages"][-1]["content"] == [picture]


@pytest.mark.parametrize("content", ["I can't judge that.", '{"violence": 0}', "", '{"violence": "high"}'])
async def test_an_answer_that_is_no_judgement_is_an_error_and_never_harmless(content: str) -> None:
    judge = Judge()
    judge.content = content
    answer = await judge.ask("war")
    assert (answer.status, answer.error["code"]) == (502, "moderation_failed")


async def test_the_error_of_one_input_is_that_of_the_request() -> None:
    judge = Judge()
    judge.pipeline.answer = RateLimitError("Too many.")
    answer = await judge.ask(["a", "b"])
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")


async def test_without_a_configuration_the_error_says_how() -> None:
    answer = await Client(create_app(parts(FakePipeline()))).post("/v1/moderations", {"input": "x"})
    assert (answer.status, answer.error["code"]) == (501, "moderations_not_configured")
    assert "moderations.model" in answer.error["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        "{model: nothing}",
        "{model: chat, labels: [none]}",
        "{model: chat, labels: [hatred]}",
        "{model: chat, labels: [hate], images: true}",
    ],
)
def test_a_configuration_that_can_not_work_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="moderations"):
        config(CONFIG + f"\nmoderations: {wrong}\n")
