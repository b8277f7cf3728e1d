"""Files and uploads, through the real SDK with strict validation."""

import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import openai
import pytest

TEXT = b"The quick brown fox jumps over the lazy dog.\n"


def test_a_file_is_created_read_and_deleted(client: openai.OpenAI, tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_bytes(TEXT)
    with source.open("rb") as opened:
        made = client.files.create(file=opened, purpose="user_data")
    assert made.id.startswith("file-")
    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == (
        "file",
        len(TEXT),
        "notes.txt",
        "user_data",
        "processed",
    )
    assert made.expires_at is None
    assert client.files.retrieve(made.id) == made
    assert client.files.wait_for_processing(made.id) == made
    assert client.files.content(made.id).read() == TEXT
    client.files.content(made.id).write_to_file(tmp_path / "copy.txt")
    assert (tmp_path / "copy.txt").read_bytes() == TEXT
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "file", True)
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve(made.id)
    assert f"No such File object: {made.id}" in caught.value.message


def test_files_are_listed_in_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.jsonl", b"{}\n"), purpose="fine-tune").id for n in range(5)]
    latest_first = [each.id for each in client.files.list(purpose="fine-tune", limit=2)]  # the SDK turns the pages
    assert latest_first[:5] == made[::-1]
    page = client.files.list(purpose="fine-tune", limit=2, order="asc", after=made[0])
    assert [each.id for each in page.data] == made[1:3]
    assert page.has_more
    assert not client.files.list(purpose="fine-tune", limit=4, after=made[4]).has_more
    assert all(each.purpose == "batch" for each in client.files.list(purpose="batch"))
    for each in made:
        client.files.delete(each)


def test_a_file_of_a_batch_expires_and_others_on_request(client: openai.OpenAI) -> None:
    batch = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86400
    asked = client.files.create(
        file=("a.txt", b"a"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert asked.expires_at == asked.created_at + 3600
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=b"a", purpose="user_data", expires_after={"anchor": "created_at", "seconds": 60})
    assert caught.value.param == "expires_after.seconds"


def test_an_upload_in_chunks(client: openai.OpenAI, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    source = tmp_path / "big.bin"
    source.write_bytes(content)
    upload = client.uploads.upload_file_chunked(
        file=source,
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=100_000,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert upload.file.bytes == len(content)
    assert client.files.content(upload.file.id).read() == content


def test_parts_are_joined_in_the_order_of_their_ids(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=6, filename="x.txt", mime_type="text/plain", purpose="user_data")
    assert (upload.status, upload.expires_at - upload.created_at) == ("pending", 3600)
    last = client.uploads.parts.create(upload.id, data=b"def")
    spare = client.uploads.parts.create(upload.id, data=b"zzz")  # sent again after a failure
    first = client.uploads.parts.create(upload.id, data=b"abc")
    assert spare.upload_id == upload.id
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(upload.id, part_ids=[first.id, last.id], md5="0" * 32)
    assert caught.value.param == "md5"
    done = client.uploads.complete(upload.id, part_ids=[first.id, last.id])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"abcdef"
    assert client.uploads.complete(upload.id, part_ids=[first.id, last.id]).file == done.file  # a retry
    with pytest.raises(openai.BadRequestError) as ended:
        client.uploads.cancel(upload.id)
    assert ended.value.code == "upload_completed"


def test_a_cancelled_upload_takes_no_parts(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=3, filename="x.txt", mime_type="text/plain", purpose="user_data")
    client.uploads.parts.create(upload.id, data=b"abc")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.parts.create(upload.id, data=b"abc")
    assert caught.value.code == "upload_cancelled"


def test_wrong_requests_name_their_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=b"a", purpose="nonsense")  # type: ignore[arg-type]
    assert (caught.value.param, caught.value.code) == ("purpose", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.files.content("file-0")
    with pytest.raises(openai.NotFoundError):
        client.files.delete("file-0")
    upload = client.uploads.create(bytes=3, filename="x", mime_type="text/plain", purpose="user_data")
    part = client.uploads.parts.create(upload.id, data=b"ab")
    for parts, param in (([part.id], "part_ids"), ([part.id] * 2, "part_ids"), (["part_0"], "part_ids[0]")):
        with pytest.raises(openai.BadRequestError) as wrong:
            client.uploads.complete(upload.id, part_ids=parts)
        assert wrong.value.param == param


async def test_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    made = await async_client.files.create(file=io.BytesIO(TEXT), purpose="assistants")
    assert (await async_client.files.content(made.id)).read() == TEXT
    assert made.id in [each.id async for each in async_client.files.list(purpose="assistants")]


def told(client: openai.OpenAI, text: str) -> int:
    """Tokens of a chat with this text, as the engine counts them."""
    return client.responses.input_tokens.count(model="chat", input=text).input_tokens


def test_a_model_reads_a_file_by_its_id(client: openai.OpenAI) -> None:
    text = "Oslo is colder than Rome. " * 20
    made = client.files.create(file=("notes.md", text.encode()), purpose="user_data")
    part = {"type": "input_file", "file_id": made.id}
    question = [{"role": "user", "content": [part, {"type": "input_text", "text": "Which is colder?"}]}]
    counted = client.responses.input_tokens.count(model="chat", input=question)  # type: ignore[arg-type]
    assert counted.input_tokens > told(client, text)
    first = client.responses.create(model="chat", input=question)  # type: ignore[arg-type]
    assert first.usage is not None
    assert first.usage.input_tokens == counted.input_tokens
    items = client.responses.input_items.list(first.id)
    assert items.data[0].content[0].file_id == made.id  # type: ignore[union-attr]  # stored as it was named
    second = client.responses.create(model="chat", input="And warmer?", previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    client.files.delete(made.id)
    third = client.responses.create(model="chat", input="And warmer?", previous_response_id=first.id)
    assert third.usage is not None
    assert third.usage.input_tokens < second.usage.input_tokens  # a deleted file is gone from the conversation
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="chat", input=question)  # type: ignore[arg-type]
    assert made.id in caught.value.message


def test_files_that_models_cannot_read_are_refused(client: openai.OpenAI) -> None:
    pdf = client.files.create(file=("a.txt", b"%PDF-1.7 ..."), purpose="user_data")  # its name is not believed
    text = client.files.create(file=("a.png", b"no picture"), purpose="vision")
    for part in ({"type": "input_file", "file_id": pdf.id}, {"type": "input_image", "file_id": text.id}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="chat", input=[{"role": "user", "content": [part]}])  # type: ignore[list-item]
        assert caught.value.code == "unsupported_file"


def test_a_chat_reads_a_file_by_its_id(client: openai.OpenAI) -> None:
    text = "Oslo is colder than Rome. " * 20
    made = client.files.create(file=("notes.md", text.encode()), purpose="user_data")

    def ask(*parts: Any, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": [*parts, {"type": "text", "text": "Which is colder?"}]}]
        return client.chat.completions.create(model="chat", messages=messages, max_tokens=4, **more)

    part = {"type": "file", "file": {"file_id": made.id}}
    read, alone = ask(part), ask()
    assert read.usage.prompt_tokens > alone.usage.prompt_tokens + 50
    stored = ask(part, store=True)
    assert stored.usage.prompt_tokens == read.usage.prompt_tokens
    # The SDK's type of these messages takes the assistant's only.
    listed: Any = json.loads(client.chat.completions.messages.with_raw_response.list(stored.id).content)
    assert [part["type"] for part in listed["data"][0]["content_parts"]] == ["text"]  # as OpenAI lists them
    client.files.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        ask(part)
