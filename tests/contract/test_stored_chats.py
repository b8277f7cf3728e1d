"""Stored chat completions under the official SDK."""

import openai
import pytest
from tests.contract.platform import Platform
from tests.contract.questions import ASK


def test_a_stored_completion_is_found_again_labelled_and_deleted(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**ASK, store=True, metadata={"topic": "ships", "test": "whole"})
    stored = client.chat.completions.retrieve(made.id)
    assert stored.choices == made.choices
    assert stored.usage == made.usage
    assert stored.to_dict()["metadata"] == {"topic": "ships", "test": "whole"}
    updated = client.chat.completions.update(made.id, metadata={"topic": "boats", "test": "whole"})
    assert updated.to_dict()["metadata"] == {"topic": "boats", "test": "whole"}
    assert client.chat.completions.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_a_streamed_completion_is_stored_as_a_whole_one(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**ASK, store=True, stream=True, stream_options={"include_usage": True}) as said:
        chunks = list(said)
    stored = client.chat.completions.retrieve(chunks[0].id)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert stored.choices[0].message.content == text
    assert stored.choices[0].finish_reason == "length"
    assert stored.usage == chunks[-1].usage


def test_stored_completions_are_listed_in_pages_by_metadata_and_model(client: openai.OpenAI) -> None:
    made = [client.chat.completions.create(**ASK, store=True, metadata={"page": "yes"}).id for _ in range(3)]
    client.chat.completions.create(**ASK, store=True, metadata={"page": "no"})
    listed = client.chat.completions.list(metadata={"page": "yes"}, model="chat", limit=2)
    assert [each.id for each in listed.data] == made[:2]
    assert [each.id for each in listed] == made
    newest = client.chat.completions.list(metadata={"page": "yes"}, order="desc")
    assert [each.id for each in newest] == made[::-1]
    assert not client.chat.completions.list(metadata={"page": "yes"}, model="other").data


def test_messages_of_a_stored_completion_are_those_of_its_request(platform: Platform) -> None:
    # Not strict: the SDK's type takes messages of the assistant only; OpenAI's lists have all of them.
    with platform.client(_strict_response_validation=False) as lenient:
        made = lenient.chat.completions.create(**ASK, store=True)
        (message,) = lenient.chat.completions.messages.list(made.id).data
    assert (message.content, message.id) == ("Say something about ships.", f"{made.id}-0")


def test_what_was_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    for more in ({}, {"store": False}, {"user": '"store"'}):
        made = client.chat.completions.create(**{**ASK, **more})
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(made.id)


def test_another_organisation_finds_nothing(client: openai.OpenAI, platform: Platform) -> None:
    made = client.chat.completions.create(**ASK, store=True)
    with platform.client("sk-qd-nobody") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.chat.completions.retrieve(made.id)
