"""An exhausted budget in the SDK: an immediate RateLimitError without a retry."""

import openai
import pytest
from tests.contract.platform import POOR, WARNED, Platform
from tests.contract.questions import ASK


def tried(client: openai.OpenAI) -> list[str]:
    """URLs requested by the client from now on."""
    asked: list[str] = []
    client._client.event_hooks["request"].append(lambda request: asked.append(str(request.url)))
    return asked


@pytest.mark.parametrize("stream", [False, True])
def test_an_exhausted_budget_is_a_rate_limit_error_and_not_tried_again(platform: Platform, stream: bool) -> None:
    with platform.client(POOR, max_retries=3) as client:
        asked = tried(client)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ASK, stream=stream)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.response.headers
    assert len(asked) == 1


def test_a_budget_that_warns_answers_and_says_so(platform: Platform) -> None:
    with platform.client(WARNED) as client:
        answer = client.chat.completions.with_raw_response.create(**ASK)
    assert answer.headers["x-quarterdeck-budget"] == "warned"
    assert answer.parse().choices[0].message.content
