"""Fakes for the gateway's own tests: a pipeline, keys, Redis, a database, and a client over ASGI."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.inference.making import an_endpoint

from quarterdeck import ids
from quarterdeck.accounting.budget_status import BudgetReader
from quarterdeck.errors import APIError, NotFoundError
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.engine_figures import EngineFigures
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.asgi_exchange import ABORT
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.gateway.model_management import ModelManagement
from quarterdeck.gateway.org_cache import OrgCache
from quarterdeck.gateway.readiness import Readiness
from quarterdeck.inference.call import Head, Reply, Sink
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.media_calls.pipeline import MediaPipeline
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.resources.chat_completions.input_files import ChatFiles
from quarterdeck.resources.chat_completions.service import StoredChats
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.files.uploads import Uploads
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.resources.requests.deletion import ContentDeletion
from quarterdeck.resources.responses.background import Background
from quarterdeck.resources.responses.compaction import Compaction
from quarterdeck.resources.responses.history import History
from quarterdeck.resources.responses.input_files import InputFiles
from quarterdeck.resources.responses.sealed import Sealed
from quarterdeck.resources.responses.service import Responses
from quarterdeck.resources.tenancy.changes import Announcer, Change
from quarterdeck.settings.config import Config
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.settings.limits import Budget
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import parse
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.batches import BatchStore
from quarterdeck.store.blobs.absent import NoBlobs
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.chat_completions import ChatCompletionStore
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.conversation_locks import ConversationLocks
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.store.prompt_links import PromptLinkStore
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.request_log import RequestLog
from quarterdeck.store.responses import ResponseStore
from quarterdeck.store.scores import ScoreStore
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.uploads import UploadStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

CONFIG = """
models:
  - name: chat
    aliases: [gpt-4o-mini]
    engine: {source: ./chat, context: 4096, adapters: [{name: pirate, source: ./pirate}], max_adapters: 1}
  - name: org/emb
    engine: {source: ./emb, task: embed}
"""

USER, ADMIN, NARROW = "sk-qd-user", "sk-qd-admin", "sk-qd-narrow"


def config(text: str = CONFIG, **gateway: Any) -> Config:
    made = parse(text)
    return made.model_copy(update={"gateway": made.gateway.model_copy(update=gateway)})


def key_row(**changes: Any) -> KeyRow:
    row = KeyRow(
        id=ids.object_id("key"),
        org="default",
        team="default",
        name="test",
        digest="",
        hint="user",
        created=1.0,
    )
    return replace(row, **changes)


class FakeKeys:
    """A key store that counts its calls and can be slow (`gate`) or unavailable (`is_away`)."""

    def __init__(self, **rows: KeyRow) -> None:
        self.rows: dict[str, KeyRow] = {}
        for secret, row in rows.items():
            self.put(secret, row)
        self.is_away = False
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_waited_for = asyncio.Event()
        """Set when a call waits for the gate."""

    def put(self, secret: str, row: KeyRow) -> None:
        self.rows[ids.digest(secret)] = replace(row, digest=ids.digest(secret))

    async def find_all(self, digests: Sequence[str]) -> dict[str, KeyRow]:
        await self._answer()
        return {digest: self.rows[digest] for digest in digests if digest in self.rows}

    async def retrieve(self, id: str, *, org: str) -> KeyRow:
        await self._answer()
        for row in self.rows.values():
            if (row.id, row.org) == (id, org):
                return row
        raise NotFoundError("no such key")

    async def retrieve_all(self, ids: Sequence[str]) -> dict[str, KeyRow]:
        await self._answer()
        return {row.id: row for row in self.rows.values() if row.id in ids}

    async def _answer(self) -> None:
        self.asked += 1
        if not self.gate.is_set():
            self.is_waited_for.set()
            await self.gate.wait()
        if self.is_away:
            raise DatabaseUnavailableError("away")


class FakeStream:
    """A stream of the given pieces. With `hangs` it never ends."""

    def __init__(self, pieces: Sequence[bytes], *, hangs: bool = False) -> None:
        self._pieces = list(pieces)
        self._hangs = hangs
        self.closed = asyncio.Event()
        self.given = 0

    async def pump(self, sink: Sink) -> None:
        while self._pieces and not self.closed.is_set():
            self.given += 1
            if not sink.put(self._pieces.pop(0)):
                await sink.room()
        if self._hangs and not self.closed.is_set():
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed.set()


class FakePipeline:
    """Replies with `answer`: a Reply, an error to raise, or a function to call."""

    def __init__(self, configuration: Config | None = None) -> None:
        self.directory = Live(Directory.of(configuration or config()))
        self.calls: list[tuple[Head, bytes]] = []
        self.answer: Reply | BaseException | Callable[[Head, bytes], Awaitable[Reply]] = Reply(
            200, ((b"content-type", b"application/json"),), b'{"ok":true}'
        )
        self.was_cancelled = asyncio.Event()
        self.was_called = asyncio.Event()

    async def call(self, head: Head, body: bytes) -> Reply:
        self.calls.append((head, body))
        self.was_called.set()
        if isinstance(self.answer, BaseException):
            raise self.answer
        if isinstance(self.answer, Reply):
            return self.answer
        try:
            return await self.answer(head, body)
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise


async def never(head: Head, body: bytes) -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


class FakeEndpoints:
    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.statuses: dict[str, ModelStatus] = {}

    def all(self) -> Sequence[Endpoint]:
        return self.endpoints

    def status(self, name: str) -> ModelStatus | None:
        return self.statuses.get(name)

    def unavailable(self, name: str) -> str:
        return ""

    def serving(self, name: str) -> Sequence[Endpoint]:
        return [each for each in self.endpoints if each.spec.state == "ready" and each.spec.serves(name)]


def endpoint(id: str = "chat#1", model: str = "chat", state: Any = "ready", **fields: Any) -> Endpoint:
    return an_endpoint(id, model=model, state=state, **fields)


class FakeRedis:
    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.error: Exception | None = None

    async def call(self, *words: str) -> Any:
        self.calls.append(words)
        if self.error is not None:
            raise self.error

    async def probe(self) -> None:
        await self.call("DEL")


class FakeDatabase:
    def __init__(self) -> None:
        self.is_away = False
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.is_away:
            raise DatabaseUnavailableError("away")


class FakePublisher:
    def __init__(self) -> None:
        self.published: list[Change] = []
        self.unspent: list[Budget | None] = []

    async def publish(self, change: Change, *, unspent: Budget | None = None) -> None:
        self.published.append(change)
        self.unspent.append(unspent)


class FakeKeyStore(FakeKeys):
    """With `create`, for the admin routes; the real store is tested in tests/store."""

    async def create(self, *, secret: str, **fields: Any) -> KeyRow:
        row = key_row(**fields, created=time.time(), hint=secret[-4:])
        self.put(secret, row)
        return row


async def never_lost(org: str, request_id: str) -> None: ...


def responses_of(
    pipeline: Any,
    database: Database,
    spawn: Any,
    *,
    store: ResponseStore | None = None,
    conversations: ConversationStore | None = None,
    stop: Callable[[str], None] = lambda response: None,
    blobs: Blobs | None = None,
    **options: Any,
) -> Responses:
    """Responses of a database."""
    return Responses(
        pipeline,
        store or ResponseStore(database),
        conversations or ConversationStore(database),
        spawn,
        history=History(
            store or ResponseStore(database),
            conversations or ConversationStore(database),
            InputFiles(Files(FileStore(database), blobs or NoBlobs(), FilesConfig)),
            Sealed(PlatformSecret(database, "compaction")),
        ),
        locks=ConversationLocks(database),
        background=BackgroundStore(database, JobStore(database)),
        stop=stop,
        **options,
    )


class FakeMedia(MediaPipeline):
    """Has a directory, and answers nothing."""

    def __init__(self, directory: Live[Directory]) -> None:
        self._directory = directory


def parts(
    pipeline: FakePipeline | None = None,
    keys: Any = None,
    endpoints: Any = None,
    redis: Redis | None = None,
    database: Database | None = None,
    requests_in_flight: RequestsInFlight | None = None,
    publisher: FakePublisher | None = None,
    blobs: Blobs | None = None,
) -> Parts:
    """A gateway's parts: its own, and fakes for everything else."""
    pipeline = pipeline or FakePipeline()
    if keys is None:
        keys = FakeKeyStore()
        keys.put(USER, key_row(id="key_user"))
        keys.put(ADMIN, key_row(id="key_admin", is_admin=True))
        keys.put(NARROW, key_row(id="key_narrow", models=frozenset({"org/emb"})))
    metrics = GatewayMetrics()
    redis = redis or Redis("unix:///nobody/listens/here")
    database = database or Database("sqlite:////nobody/asks/it.db")
    endpoints = endpoints or FakeEndpoints(endpoint(), endpoint("emb#1", "org/emb", "starting", task="embed"))
    background_store = BackgroundStore(database, JobStore(database))
    blobs = blobs or NoBlobs()
    files = Files(FileStore(database), blobs, lambda: pipeline.directory.current.config.files)
    sealed = Sealed(PlatformSecret(database, "compaction"))
    history = History(ResponseStore(database), ConversationStore(database), InputFiles(files), sealed)
    authenticator = Authenticator(
        keys,
        pipeline.directory.select(lambda each: each.config),
        on_outcome=lambda outcome: metrics.authentications.add((outcome,)),
    )
    background = Background(
        pipeline,
        background_store,
        history,
        never_lost,
        lambda model, principal: True,
        confirm=authenticator.confirm,
    )
    chat_files = ChatFiles(pipeline, InputFiles(files), authenticator.confirm)
    return Parts(
        directory=pipeline.directory,
        pipeline=pipeline,
        media=FakeMedia(pipeline.directory),
        endpoints=endpoints,
        authenticator=authenticator,
        keys=keys,
        teams=TeamStore(database),
        orgs=OrgStore(database),
        org_deletion=OrgDeletion(database),
        prompts=PromptStore(database),
        prompt_links=PromptLinkStore(database),
        prompt_changes=PromptAnnouncer(redis),
        prompt_results=PromptResults(database),
        ledger=Ledger(database),
        requests=RequestLog(database),
        contents=ContentStore(database),
        content_deletion=ContentDeletion(ContentStore(database), StoredObjects(database), redis),
        scores=ScoreStore(database),
        webhooks=WebhookStore(database),
        outbox=WebhookOutbox(database),
        redactor=Live(Redactor()),
        redis=redis,
        changes=Announcer(authenticator, publisher or FakePublisher()),
        models=ModelManagement(None, pipeline.directory, lambda: None, EngineFigures(HttpClient()), None),
        cache=OrgCache(redis),
        budgets=BudgetReader(redis),
        readiness=Readiness(
            redis=FakeRedis(),
            database=FakeDatabase(),
            directory=pipeline.directory,
            endpoints=endpoints,
            is_draining=lambda: False,
            config_error=lambda: None,
        ),
        metrics=metrics,
        access=AccessLog(metrics),
        requests_in_flight=RequestsInFlight() if requests_in_flight is None else requests_in_flight,
        responses=responses_of(
            pipeline, database, BackgroundTasks().spawn, stop=background.stop, confirm=authenticator.confirm
        ),
        background=background,
        compaction=Compaction(pipeline, history, sealed),
        response_store=ResponseStore(database),
        conversations=ConversationStore(database),
        stored_chats=StoredChats(chat_files, ChatCompletionStore(database), BackgroundTasks().spawn),
        chat_files=chat_files,
        chat_completions=ChatCompletionStore(database),
        files=files,
        batches=BatchStore(database, JobStore(database)),
        uploads=Uploads(UploadStore(database), files, blobs),
        started=1_700_000_000,
    )


@dataclass
class Answer:
    """A response received over ASGI."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    is_whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; the body has no other members."""
        found = self.json
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        return dict(found["error"])


class Client:
    """Sends one request at a time over ASGI. `hang_up` disconnects; after `stop_reading_after` pieces `send` blocks."""

    def __init__(self, app: Any, key: str | None = USER) -> None:
        self._app = app
        self._key = key
        self.gone = asyncio.Event()
        self._takes: int | None = None
        self.was_aborted = False
        self.answer = Answer()
        self.has_piece = asyncio.Event()

    def hang_up(self) -> None:
        self.gone.set()

    def stop_reading_after(self, pieces: int) -> None:
        self._takes = pieces

    def abort(self) -> None:
        self.was_aborted = True

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.request(
            "POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), **options
        )

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Sequence[tuple[str, str]] = (),
        pieces: Sequence[bytes] | None = None,
        body_ends: bool = True,
    ) -> Answer:
        """Send a request and collect the response. `pieces` is a body in pieces; without `body_ends` it has no end."""
        waiting = list(pieces if pieces is not None else [body])
        self.answer = answer = Answer()

        async def receive() -> dict[str, Any]:
            if waiting:
                piece = waiting.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(waiting) or not body_ends}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if len(answer.pieces) == self._takes:
                await asyncio.Event().wait()
            if message["type"] == "http.response.start":
                assert not answer.status, "an answer began twice"
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            answer.pieces.append(message["body"])
            answer.is_whole = not message.get("more_body", False)
            self.has_piece.set()

        await self._app(self._scope(method, path, headers), receive, send)
        return answer

    def _scope(self, method: str, target: str, headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
        path, _, query = target.partition("?")
        sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if self._key is not None:
            sent.append((b"authorization", b"Bearer " + self._key.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(errors="surrogateescape"),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": sent,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},
            "extensions": {ABORT: {"call": self.abort}},
        }


def error(status: int = 500, **fields: Any) -> APIError:
    made = APIError("it failed", **fields)
    made.status = status
    return made
