"""Files that a chat's messages name by id."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.gateway.fakes import FakePipeline
from tests.inference.making import a_principal

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, BadRequestError, NotFoundError
from quarterdeck.inference.call import Head, Operation
from quarterdeck.resources.chat_completions.input_files import ChatFiles
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.responses.input_files import InputFiles
from quarterdeck.settings.file_storage import MIB, FilesConfig
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore
from quarterdeck.store.ownership import Owner

TEAM, OTHER = Owner("default", "team", "key_1"), Owner("default", "other", "key_2")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


class Chats:
    """Chats of a key of TEAM, over a pipeline that only notes them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.files = Files(FileStore(database), FolderBlobs(folder), lambda: FilesConfig(max_input_mb=1))
        self.pipeline = FakePipeline()
        self.team = TEAM
        self._chats = ChatFiles(self.pipeline, InputFiles(self.files), self._confirm)

    async def _confirm(self, principal: Principal) -> Principal:
        return a_principal(key=self.team.key, org=self.team.org, team=self.team.team)

    async def file(self, content: bytes, name: str, owner: Owner = TEAM) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        return (await self.files.create(owner, pieces(), filename=name, purpose="user_data")).id

    async def send(self, *parts: Any) -> Any:
        """The content that the engine is sent."""
        body = {"model": "chat", "temperature": 0.5, "messages": [{"role": "user", "content": list(parts)}]}
        principal = a_principal(key="key_1", org="default", team="stale")
        head = Head("req_1", Operation.CHAT, principal, 0.0)
        await self._chats.call(head, json.dumps(body).encode())
        sent = json.loads(self.pipeline.calls[-1][1])
        assert (sent["model"], sent["temperature"]) == ("chat", 0.5)
        return sent["messages"][0]["content"]


@pytest.fixture
def chats(database: Database, tmp_path: Path) -> Chats:
    return Chats(database, tmp_path)


def named(file_id: Any, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_id": file_id, **more}}


async def test_a_text_is_a_text_and_a_picture_a_data_url(chats: Chats) -> None:
    text, picture = await chats.file(b"Oslo is cold.", "notes.md"), await chats.file(PNG, "a.png")
    question = {"type": "text", "text": "What is this?"}
    data = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}}
    first, second, *rest = await chats.send(named(text), named(picture), question, data)
    assert first == {"type": "text", "text": "[file: notes.md]\nOslo is cold."}
    assert (second["type"], second["image_url"]["url"][:22]) == ("image_url", "data:image/png;base64,")
    assert rest == [question, data]


async def test_what_is_sent_itself_is_read_in_the_same_way(chats: Chats) -> None:
    def sent(data: str, **more: str) -> dict[str, Any]:
        return {"type": "file", "file": {"file_data": data, **more}}

    text = base64.b64encode(b"Oslo is cold.").decode()
    picture = base64.b64encode(PNG).decode()
    read = await chats.send(
        sent(f"data:text/plain;base64,{text}", filename="a.txt"), sent(text), sent(f"data:x;base64,{picture}")
    )
    assert [part.get("text") for part in read] == ["[file: a.txt]\nOslo is cold.", "[file: file]\nOslo is cold.", None]
    assert read[2]["image_url"]["url"] == f"data:image/png;base64,{picture}"
    kept = [sent("data:,x"), sent("not base64"), sent("data:application/pdf;base64,JVBERi0xLjcKAP8=", filename="a.pdf")]
    assert await chats.send(*kept) == kept


async def test_another_teams_file_is_not_found(chats: Chats) -> None:
    theirs = await chats.file(b"secret", "a.txt", OTHER)
    for id in (theirs, "file-none"):
        with pytest.raises(NotFoundError):
            await chats.send(named(id))
    assert chats.pipeline.calls == []
    chats.team = OTHER  # the key was moved
    assert "secret" in (await chats.send(named(theirs)))[0]["text"]


async def test_what_is_too_large_or_unreadable_is_refused(chats: Chats) -> None:
    half, binary = await chats.file(b"a" * (MIB // 2), "a.txt"), await chats.file(b"%PDF-1.7\n\0\xff", "a.pdf")
    await chats.send(named(half), named(half))
    for parts, code in (([named(half)] * 3, "context_too_large"), ([named(binary)], "unsupported_file")):
        with pytest.raises(BadRequestError) as refused:
            await chats.send(*parts)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (named("file-1", file_data="data:,x"), "mutually_exclusive_parameters"),
        (named(5), "invalid_type"),
        (named(""), "invalid_type"),
        (named("file-\0"), "invalid_type"),
    ],
)
async def test_a_malformed_part_is_refused_with_its_place(chats: Chats, part: Any, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await chats.send({"type": "text", "text": "Hi"}, part)
    assert (refused.value.param, refused.value.code) == ("messages[0].content[1].file.file_id", code)


@pytest.mark.parametrize(
    "part", [{"type": "file", "file": {}}, {"type": "file"}, {"type": "text", "text": '"file_id"'}, 5]
)
async def test_what_names_no_file_is_the_engines_to_judge(chats: Chats, part: Any) -> None:
    assert await chats.send(part) == [part]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"file_id": 1}', b'{"messages": 5, "file_id": 1}'])
async def test_other_bodies_pass_or_are_refused(chats: Chats, body: bytes) -> None:
    head = Head("req_1", Operation.CHAT, cast(Any, None), 0.0)
    try:
        await chats._chats.call(head, body)
    except APIError as error:
        assert error.status == 400
    else:
        assert chats.pipeline.calls[-1][1] == body
