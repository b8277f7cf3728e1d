"""500 random reads of other teams' and organisations' objects: always 404, and nothing of them in any answer."""

import random
from pathlib import Path
from typing import Any

import msgspec
from tests.gateway.fakes import Client, FakePipeline, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.inference.call import Reply
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

OWNERS = {"sk-qd-red": ("default", "red"), "sk-qd-blue": ("default", "blue"), "sk-qd-acme": ("acme", "red")}
READS = 500
TYPE = [("content-type", "multipart/form-data; boundary=xyz")]
JSON = [("content-type", "application/json")]
BY_ID = {
    "response": (
        *(("GET", "/v1/responses/{}"), ("GET", "/v1/responses/{}?stream=true"), ("DELETE", "/v1/responses/{}")),
        *(("GET", "/v1/responses/{}/input_items"), ("POST", "/v1/responses/{}/cancel")),
    ),
    "conversation": (
        *(("GET", "/v1/conversations/{}"), ("DELETE", "/v1/conversations/{}"), ("GET", "/v1/conversations/{}/items")),
        *(("POST", "/v1/conversations/{}"), ("POST", "/v1/conversations/{}/items")),
    ),
    "file": (
        *(("GET", "/v1/files/{}"), ("GET", "/v1/files/{}/content"), ("DELETE", "/v1/files/{}")),
        ("GET", "/v1/files?after={}"),
    ),
    "upload": (
        *(("POST", "/v1/uploads/{}/cancel"), ("POST", "/v1/uploads/{}/complete"), ("POST", "/v1/uploads/{}/parts")),
    ),
}
LISTS = ("/v1/files", "/v1/files?order=asc&limit=1", "/v1/chat/completions")
BODIES: dict[str, Any] = {
    "/v1/conversations/{}": {"metadata": {}},
    "/v1/conversations/{}/items": {"items": []},
    "/v1/uploads/{}/complete": {"part_ids": ["part_1"]},
}


def form(name: str, content: bytes) -> bytes:
    return (
        b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n%b\r\n--xyz--\r\n'
        % (name.encode(), content, content)
    )


async def objects_of(app: RequestLifecycle, key: str, secret: str) -> dict[str, str]:
    """One object of each kind, with `secret` in all that it says."""
    client = Client(app, key=key)
    file = await client.post("/v1/files", form("file", secret.encode()), headers=TYPE)
    upload = {"bytes": 9, "filename": secret, "mime_type": "text/plain", "purpose": "user_data"}
    item = {"type": "message", "role": "user", "content": secret}
    made = {
        "file": file,
        "upload": await client.post("/v1/uploads", upload, headers=JSON),
        "conversation": await client.post("/v1/conversations", {"items": [item]}, headers=JSON),
        "response": await client.post("/v1/responses", {"model": "chat", "input": secret}, headers=JSON),
    }
    return {kind: answer.json["id"] for kind, answer in made.items()}


async def test_no_read_of_another_teams_objects_finds_anything(database: Database, tmp_path: Path) -> None:
    keys = KeyStore(database)
    for secret, (org, team) in OWNERS.items():
        await keys.create(secret=secret, name=secret, org=org, team=team)
    pipeline = FakePipeline()
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    chat = {"id": "chatcmpl-1", "object": "chat.completion", "model": "chat", "choices": [choice], "usage": usage}
    pipeline.answer = Reply(200, ((b"content-type", b"application/json"),), msgspec.json.encode(chat))
    app = create_app(parts(pipeline, keys=keys, database=database, blobs=FolderBlobs(tmp_path)))
    secrets = {key: f"secret-of-{key}" for key in OWNERS}
    objects = {key: await objects_of(app, key, secret) for key, secret in secrets.items()}
    chosen = random.Random(16)
    for _ in range(READS):
        owner, reader = chosen.sample(sorted(OWNERS), 2)
        client = Client(app, key=reader)
        kind = chosen.choice(("list", "input", *BY_ID))
        if kind == "list":
            answer, expected = await client.get(chosen.choice(LISTS)), 200
        elif kind == "input":
            part = {"type": "input_file", "file_id": objects[owner]["file"]}
            member: dict[str, Any] = chosen.choice(
                (
                    {"previous_response_id": objects[owner]["response"], "input": "x"},
                    {"conversation": objects[owner]["conversation"], "input": "x"},
                    {"input": [{"role": "user", "content": [part]}]},
                )
            )
            path = chosen.choice(("/v1/responses", "/v1/responses/input_tokens"))
            answer, expected = await client.post(path, {"model": "chat", **member}, headers=JSON), 404
        else:
            method, path = chosen.choice(BY_ID[kind])
            body = form("data", b"x") if path.endswith("/parts") else msgspec.json.encode(BODIES.get(path, {}))
            headers = TYPE if path.endswith("/parts") else JSON
            answer = await client.request(
                method, path.format(objects[owner][kind]), body if method == "POST" else b"", headers=headers
            )
            expected = 404
        assert answer.status == expected, (kind, answer.body)
        shown = answer.body.decode() + repr(answer.headers)
        assert secrets[owner] not in shown
        assert not any(each in shown for each in objects[owner].values()) or expected == 404
    for key, of in objects.items():  # and nothing of theirs was changed
        client = Client(app, key=key)
        assert (await client.get(f"/v1/files/{of['file']}/content")).body.decode() == secrets[key]
        assert (await client.get(f"/v1/responses/{of['response']}")).status == 200
        assert secrets[key] in (await client.get(f"/v1/conversations/{of['conversation']}/items")).body.decode()
