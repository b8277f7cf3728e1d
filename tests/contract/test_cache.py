"""To the SDK a cached answer equals the original."""

from typing import Any

import openai
from tests.contract.platform import ADMIN, Platform
from tests.servers import wait_until

ASK: Any = {"model": "chat", "messages": [{"role": "user", "content": "Keep this."}], "max_tokens": 8, "temperature": 0}


def test_a_hit_is_the_first_answer_once_more(client: openai.OpenAI, platform: Platform) -> None:
    create = client.chat.completions.with_raw_response.create
    first = create(**ASK)
    assert first.headers["x-cache"] == "miss"
    made = [first]

    def is_hit() -> bool:
        made.append(create(**ASK))
        return bool(made[-1].headers["x-cache"] == "hit")

    wait_until(is_hit, seconds=5, what=lambda: "no hit")
    second = made.pop()
    # A request before the first answer is cached gets its own answer, which may replace it.
    first = next(each for each in made if each.parse().id == second.parse().id)
    assert second.parse() == first.parse()
    assert second.headers["x-cache-key"] == first.headers["x-cache-key"]
    assert int(second.headers["age"]) >= 0
    record = platform.record(second.headers["x-request-id"])
    assert (record.cache, record.cost, record.output_tokens) == ("hit", 0, 0)
    assert record.saved == platform.record(first.headers["x-request-id"]).cost > 0


def test_a_stream_comes_out_of_the_cache_as_it_went_in(client: openai.OpenAI) -> None:
    def told(**options: Any) -> tuple[str, list[Any]]:
        with client.chat.completions.create(**ASK, stream=True, **options) as stream:
            return stream.response.headers["x-cache"], list(stream)

    assert told()[0] == "miss"
    wait_until(lambda: told()[0] == "hit", seconds=5, what=lambda: "no hit")
    _, first = told()
    assert told() == ("hit", first)
    state, with_usage = told(stream_options={"include_usage": True})
    assert state == "hit"
    assert with_usage[-1].usage is not None and with_usage[:-1] == first


def test_who_forbids_it_has_a_new_answer(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_raw_response.create
    assert create(**ASK, extra_headers={"cache-control": "no-store"}).headers["x-cache"] == "bypass"
    assert create(**ASK | {"temperature": 1}).headers["x-cache"] == "bypass"


def test_an_admin_makes_it_forget(client: openai.OpenAI, platform: Platform) -> None:
    create = client.chat.completions.with_raw_response.create
    asked = ASK | {"max_tokens": 9}
    key = create(**asked).headers["x-cache-key"]
    wait_until(lambda: create(**asked).headers["x-cache"] == "hit", seconds=5, what=lambda: "no hit")
    with platform.client(ADMIN, base_url=platform.gateway.url) as admin:
        gone: Any = admin.delete("/admin/cache", cast_to=object, options={"params": {"key": key}})
    assert gone["deleted"] == 1
    assert create(**asked).headers["x-cache"] == "miss"
