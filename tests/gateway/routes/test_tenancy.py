"""What belongs to another team or organisation does not exist: in reads, writes, lists, cursors, filters, references.

Each way to name an object (`tenancy_table`) is tried with another's object and with one that does not exist. Both are
answered alike, byte for byte but the id, after the same statements of the database, and nothing is changed.
"""

import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import Engine, event, select
from starlette.routing import Route
from tests.gateway.fakes import Answer, Client, FakePipeline, parts, responses_of
from tests.gateway.routes.tenancy_table import (
    FIXED,
    FORM,
    ID,
    NAME_CURSORS,
    NOT_NAMES,
    OF_MODELS,
    PARAMETERS,
    PLATFORM,
    SCOPES,
    UNSERVED,
    WAYS,
    Way,
)
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.gateway.app import create_api, create_app
from quarterdeck.gateway.auth.job_credentials import JobCredentials
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.inference.call import Head, Reply
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.protocol.job_credentials import SECONDS, JobClaims, sign
from quarterdeck.resources.chat_completions.service import StoredChats
from quarterdeck.resources.webhooks.events import TEST, new_event
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.store.tables import metadata

READS = 500
TYPE = [("content-type", "multipart/form-data; boundary=xyz")]
JSON = [("content-type", "application/json")]
OWNERS = {"sk-qd-red": ("default", "red"), "sk-qd-blue": ("default", "blue"), "sk-qd-acme": ("acme", "red")}
ADMINS = {"default": "sk-qd-boss", "acme": "sk-qd-stranger"}
"""Of each organisation; that of `default` is one of the platform."""
OF_EACH = ("x-request-id", "openai-processing-ms")
"""Headers that differ from request to request."""
Objects = dict[str, dict[str, str]]
"""Ids by the owner's key and the kind."""


def form(name: str, content: bytes, purpose: str = "user_data") -> bytes:
    field = b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%b\r\n' % purpose.encode()
    filename = b"lines.jsonl" if b'"' in content else content
    return (b"" if name == "data" else field) + (
        b'--xyz\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n%b\r\n--xyz--\r\n'
        % (name.encode(), filename, content)
    )


class Bench:
    """A gateway on a real database, with an object of each kind for each owner, in which its secret is everywhere."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.keys = KeyStore(database)
        self._chats = 0
        pipeline = FakePipeline()
        pipeline.answer = self._answer
        self.secret = PlatformSecret(database, "jobs")
        blobs = FolderBlobs(folder)
        made = parts(pipeline, keys=self.keys, database=database, blobs=blobs)
        self.tasks = BackgroundTasks()
        spawn = self.tasks.spawn
        self.parts: Parts = replace(
            made,
            job_credentials=JobCredentials(made.authenticator, self.secret),
            responses=responses_of(pipeline, database, spawn, stop=made.background.stop, blobs=blobs),
            stored_chats=StoredChats(made.chat_files, made.chat_completions, spawn),
        )
        self.app: RequestLifecycle = create_app(self.parts)
        self.objects: Objects = {}

    async def _answer(self, head: Head, body: bytes) -> Reply:
        self._chats += 1
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        chat = {"id": f"chatcmpl-{self._chats:08}", "object": "chat.completion", "created": 1, "model": "chat"}
        body = msgspec.json.encode({**chat, "choices": [choice], "usage": usage})
        return Reply(200, ((b"content-type", b"application/json"),), body)

    async def fill(self) -> None:
        await OrgStore(self.database).create("acme")
        for org, secret in ADMINS.items():
            await self.keys.create(secret=secret, name=f"admin of {org}", org=org, is_admin=True)
        for key, (org, team) in OWNERS.items():
            row = await self.keys.create(secret=key, name=secret_of(key), org=org, team=team)
            self.objects[key] = {"key": row.id, "org": org, "text": secret_of(key)}
            self.objects[key] |= await self._of_member(key)
            self.objects[key] |= await self._of_admin(key, row.id, org, team)

    async def _post(self, key: str, path: str, body: Any, field: str = "id") -> Any:
        sent, headers = (body, TYPE) if isinstance(body, bytes) else (json.dumps(body).encode(), JSON)
        answer = await Client(self.app, key=key).request("POST", path, sent, headers=headers)
        assert answer.status in (200, 201), (path, answer.body)
        return answer.json[field]

    async def _of_member(self, key: str) -> dict[str, str]:
        secret, made = secret_of(key), dict[str, str]()
        item = {"type": "message", "role": "user", "content": secret}
        ask = {"model": "chat", "input": secret, "metadata": {"secret": secret}}
        line = json.dumps({"custom_id": secret}).encode()
        made["file"] = await self._post(key, "/v1/files", form("file", secret.encode()))
        made["batch_file"] = await self._post(key, "/v1/files", form("file", line, "batch"))
        upload = {"bytes": len(secret), "filename": secret, "mime_type": "text/plain", "purpose": "user_data"}
        made["upload"] = await self._post(key, "/v1/uploads", upload)
        made["part"] = await self._post(key, f"/v1/uploads/{made['upload']}/parts", form("data", secret.encode()))
        made["conversation"] = await self._post(key, "/v1/conversations", {"items": [item]})
        made["response"] = await self._post(key, "/v1/responses", ask)
        made["background"] = await self._post(key, "/v1/responses", {**ask, "background": True})
        chat = {"model": "chat", "store": True, "messages": [{"role": "user", "content": secret}]}
        made["chat"] = await self._post(key, "/v1/chat/completions", chat)
        batch = {"input_file_id": made["batch_file"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made["batch"] = await self._post(key, "/v1/batches", {**batch, "metadata": {"secret": secret}})
        client = Client(self.app, key=key)
        items = (await client.get(f"/v1/conversations/{made['conversation']}/items")).json["data"]
        messages = (await client.get(f"/v1/chat/completions/{made['chat']}/messages")).json["data"]
        return {**made, "item": items[0]["id"], "message": messages[0]["id"]}

    async def _of_admin(self, key: str, key_id: str, org: str, team: str) -> dict[str, str]:
        secret, admin = secret_of(key), ADMINS[org]
        made = {"user": f"user-{secret}", "session": f"session-{secret}", "tag": f"tag-{secret}"}
        made |= {"prompt_name": f"prompt-{secret}", "link_name": f"link-{secret}", "team": f"team-{secret}"}
        await self._post(admin, "/admin/teams", {"id": made["team"]})
        prompt = {"name": made["prompt_name"], "teams": [team], "description": secret, "text": secret}
        made["prompt"] = await self._post(admin, "/v1/prompts", prompt)
        events = (await Client(self.app, key=admin).get(f"/v1/prompts/{made['prompt']}/events")).json["data"]
        made["prompt_event"] = events[0]["id"]
        link = await self.parts.prompt_links.create(org=org, project="proj_1", name=made["link_name"])
        made["prompt_link"] = link.id
        hook = {"url": f"https://hooks.example.com/{secret}", "name": secret}
        made["webhook"] = await self._post(admin, "/admin/webhooks", hook)
        now = time.time()
        posted = new_event(TEST, org, {"message": secret}, now=now, expires=now + 3600)
        recorded = await self.parts.outbox.record(posted, retry_until=now, max_waiting=10, endpoint=made["webhook"])
        made["delivery"] = recorded.deliveries[0]
        more = {"user": made["user"], "session": made["session"], "tags": (made["tag"],)}
        record = a_record(org=org, team=team, key=key_id, prompt=made["prompt_name"], content="full", **more)
        text = json.dumps({"messages": [{"role": "user", "content": secret}]}).encode()
        await self.parts.ledger.insert([record])
        await self.parts.contents.insert([(record, Content(level="full", input=text, input_bytes=len(text)))])
        made["request"] = record.id
        made["score_name"] = f"score-{secret}"
        score = {"request_id": record.id, "name": made["score_name"], "comment": secret, "user": made["user"]}
        made["score"] = made["admin_score"] = await self._post(key, "/v1/feedback", score)
        return made

    def readers(self, way: Way, owner: str) -> list[str]:
        """Keys for which the owner's object does not exist."""
        org = OWNERS[owner][0]
        scope = SCOPES[way.kind]
        foreign = [admin for of, admin in ADMINS.items() if of != org]
        if scope == "platform":
            return [ADMINS["acme"]] if org == "default" else []
        if scope == "org" or way.needs_admin or way.route.startswith("/admin"):
            return foreign
        others = [key for key in OWNERS if key != owner]
        if way.own:  # admins have made none of these
            return others
        return [*others, *(ADMINS.values() if scope == "team" else foreign)]

    async def ask(self, way: Way, id: str, owner: str, reader: str) -> tuple[Answer, list[str]]:
        """The answer to a request that names this object, and the statements that it took, those after it included."""
        path, own = way.route, self.objects.get(reader, {})
        is_named = False
        for parameter in re.findall(r"{(\w+)}", way.route):
            if parameter in FIXED:
                value = FIXED[parameter]
            elif parameter in way.own:
                value = own[PARAMETERS[parameter]]
            else:
                value = self.objects[owner][PARAMETERS[parameter]] if is_named else id
                is_named = True
            path = path.replace(f"{{{parameter}}}", value)
        body, headers = b"", JSON
        if way.body is FORM:
            body, headers = form("data", b"x"), TYPE
        elif way.body is not None:
            body = json.dumps(way.body).replace(ID, id).encode()
        target = f"{path}?{way.query.replace(ID, id)}" if way.query else path
        with statements() as seen:
            answer = await Client(self.app, key=reader).request(way.method, target, body, headers=headers)
            await self.tasks.drain()
        return answer, sorted(seen)

    async def rows(self) -> set[tuple[str, str]]:
        """All that the database has."""
        found = set[tuple[str, str]]()
        async with self.database.connect() as connection:
            for table in metadata.sorted_tables:
                found |= {(table.name, repr(row)) for row in await connection.execute(select(table))}
        return found


def secret_of(key: str) -> str:
    return f"secret-of-{key.removeprefix('sk-qd-')}"


def absent(id: str) -> str:
    """An id of this form that nothing has."""
    return f"{id[:-3]}000"


@contextmanager
def statements() -> Iterator[list[str]]:
    """Statements that are executed meanwhile, without their values."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(database, tmp_path)
    await made.fill()
    await made.tasks.drain()
    yield made
    await made.tasks.drain()


def shown(answer: Answer, id: str) -> tuple[int, str, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in OF_EACH}
    return answer.status, answer.body.decode().replace(id, ID), headers


async def check(bench: Bench, way: Way, owner: str, reader: str) -> None:
    """`way` with the owner's object, and with one that does not exist."""
    reader_has_own = reader in OWNERS or not way.own
    if not reader_has_own:  # an admin's own objects are those of a member of its organisation
        member = next(key for key, (org, _) in OWNERS.items() if ADMINS[org] == reader)
        bench.objects[reader] = bench.objects[member]
    id = bench.objects[owner][way.kind]
    answer, seen = await bench.ask(way, id, owner, reader)
    assert answer.status == way.status, (way, reader, answer.body)
    said = answer.body.decode().replace(id, ID) + repr(answer.headers).replace(id, ID)
    assert secret_of(owner) not in said, (way, reader, said)
    assert not any(each in said for kind, each in bench.objects[owner].items() if kind not in ("org", "text")), way
    other, others_statements = await bench.ask(way, absent(id), owner, reader)
    if way.absent_differs:
        assert other.status in (200, 201), (way, other.body)
        return
    assert shown(answer, id) == shown(other, absent(id)), (way, reader)
    assert seen == others_statements, (way, reader)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True)
async def test_every_way_to_an_object_of_another_finds_nothing_and_changes_nothing(bench: Bench) -> None:
    chosen = random.Random(16)
    tried = 0
    before = await bench.rows()
    for way, following in zip(WAYS, (*WAYS[1:], None), strict=True):
        pairs = [(owner, reader) for owner in OWNERS for reader in bench.readers(way, owner)]
        assert pairs, way
        for owner, reader in pairs if len(pairs) < 6 else chosen.sample(pairs, 4):
            await check(bench, way, owner, reader)
            tried += 1
        if following is None or following.route.split("/")[:3] != way.route.split("/")[:3]:
            assert before - await bench.rows() == set(), way
    assert tried >= READS


async def test_no_list_shows_what_belongs_to_another(bench: Bench) -> None:
    api = create_api(bench.parts, bench.app.registry)
    lists = [route.path for route in api.routes if isinstance(route, APIRoute) and "GET" in route.methods]
    lists = [path for path in lists if "{" not in path and path.startswith(("/v1", "/admin"))]
    assert len(lists) > 15
    for reader in (*OWNERS, *ADMINS.values()):
        for path in lists:
            query = "?start_time=1790000000&group_by=api_key_id&group_by=user_id" if "organization/" in path else ""
            answer = await Client(bench.app, key=reader).get(path + query)
            said = answer.body.decode()
            for owner, objects in bench.objects.items():
                if owner not in OWNERS or owner == reader:
                    continue
                for kind, id in objects.items():
                    probe = Way(kind, "GET", path)
                    if reader in bench.readers(probe, owner) and kind not in ("org", "text"):
                        assert id not in said, (path, reader, kind)
                if reader in bench.readers(Way("prompt", "GET", path), owner) and not path.startswith("/admin"):
                    assert secret_of(owner) not in said, (path, reader)


def test_every_route_and_parameter_that_may_name_an_object_is_tried() -> None:
    made = parts()
    ways = {(way.method, way.route) for way in WAYS}
    queries = {(way.method, way.route, name) for way in WAYS for name in re.findall(r"([^=&]+)=", way.query)}
    for route in create_api(made, create_app(made).registry).routes:
        assert isinstance(route, Route | APIRoute)
        for method in (route.methods or set()) - {"HEAD"}:
            where = (method, route.path)
            if where in PLATFORM:
                continue
            if "{" in route.path and not route.path.startswith((*UNSERVED, *OF_MODELS)):
                assert where in ways, f"{where}: add how it names an object to tenancy_table"
            names = parameters(route.dependant) if isinstance(route, APIRoute) else set[str]()
            for name in names - NOT_NAMES.keys():
                assert (*where, name) in queries | NAME_CURSORS, f"{where}: add its parameter '{name}' to tenancy_table"
    assert PARAMETERS.keys() >= {name for way in WAYS for name in re.findall(r"{(\w+)}", way.route)} - FIXED.keys()
    assert {way.kind for way in WAYS} == SCOPES.keys()


def parameters(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(parameters, dependant.dependencies))


async def test_another_organisation_can_not_be_named(bench: Bench) -> None:
    """Wherever a route takes `org`, an admin of another organisation learns nothing, not even whether it exists."""
    made = create_api(bench.parts, bench.app.registry).routes
    routes = [route for route in made if isinstance(route, APIRoute) and "org" in parameters(route.dependant)]
    assert len(routes) > 20
    for route in routes:
        path = re.sub(r"{\w+}", "x", route.path)
        for method in route.methods - {"HEAD"}:
            answers = []
            for org in ("default", "defaulz"):
                client = Client(bench.app, key=ADMINS["acme"])
                answer = await client.request(method, f"{path}?org={org}", b"{}", headers=JSON)
                answers.append(shown(answer, org))
            assert answers[0] == answers[1], path
            assert answers[0][0] in (400, 403), (path, answers[0])


async def test_a_job_of_one_organisation_executes_no_response_of_another(bench: Bench) -> None:
    stranger = bench.objects["sk-qd-acme"]["key"]
    before = await bench.rows()
    said = []
    for id in (bench.objects["sk-qd-red"]["background"], absent(bench.objects["sk-qd-red"]["background"])):
        claims = JobClaims(stranger, "acme", "job_1", "req_1", time.time() + SECONDS, id, 1)
        key = sign(claims, await bench.secret.read())
        answer = await Client(bench.app, key).post("/v1/responses", {"model": "chat", "input": "x", "background": True})
        said.append((answer.status, answer.body))
    assert said[0] == said[1]
    assert b'"state":"done"' in said[0][1]
    assert before - await bench.rows() == set()
