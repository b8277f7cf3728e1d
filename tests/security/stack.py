"""The platform for security tests: gateway and worker as processes, a recording engine, and a trace backend in this
process. Prices are such that one request exhausts a budget."""

import asyncio
import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.stack import WorkerProcess
from tests.platform import GatewayProcess
from tests.security.engine import RecordingEngine
from tests.servers import short_folder
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.accounting.redis_keys import reservations_key
from quarterdeck.inference.call import Operation
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter

PROVIDERS_KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
"""Not of a form that a pattern would recognize."""
USER, ADMIN, BROKE, SPENT = (f"sk-qd-{name}-0b5c1f72" for name in ("user", "admin", "broke", "spent"))
CONFIG = """
models:
  - name: chat
    price: {{input: "1000000", output: "1000000"}}
    serves:
      - audio.transcriptions
      - audio.translations
      - audio.speech
      - images.generations
      - images.edits
      - images.variations
    endpoints: [{{url: "{engine}", api_key_env: PROVIDERS_KEY}}]
gateway:
  retries: 0
  resumes: 0
  reservation_lease_seconds: 1
  client_write_timeout_seconds: 1
  forward_headers: [x-allowed]
"""
FORM = b"--form\r\n"


def _form(file: str) -> bytes:
    """With a model and a file."""
    fields = b'content-disposition: form-data; name="model"\r\n\r\nchat\r\n' + FORM
    head = b'content-disposition: form-data; name="%b"; filename="x"\r\n\r\n' % file.encode()
    return FORM + fields + head + b"x\r\n--form--\r\n"


BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    "/v1/completions": {"model": "chat", "prompt": "hi", "max_tokens": 5},
    "/v1/embeddings": {"model": "chat", "input": "hi"},
    "/tokenize": {"model": "chat", "prompt": "hi"},
    "/detokenize": {"model": "chat", "tokens": [1]},
    "/v1/score": {"model": "chat", "text_1": "a", "text_2": "b"},
    "/classify": {"model": "chat", "input": "hi"},
    "/v1/audio/transcriptions": _form("file"),
    "/v1/audio/translations": _form("file"),
    "/v1/audio/speech": {"model": "chat", "input": "hi", "voice": "a"},
    "/v1/images/generations": {"model": "chat", "prompt": "hi"},
    "/v1/images/edits": _form("image"),
    "/v1/images/variations": _form("image"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        code = json.loads(self.body)["error"]["code"]
        return None if code is None else str(code)


@dataclass(frozen=True, slots=True)
class Platform:
    folder: Path
    engine: RecordingEngine
    gateway: GatewayProcess
    worker: WorkerProcess
    sink: OTLPSink
    redis_url: str
    database_url: str

    def ask(self, path: str, body: Any = None, *, key: str = USER, method: str = "POST", **headers: str) -> Answer:
        """Send one request on its own connection. `_` in `headers` becomes `-`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        kind = "multipart/form-data; boundary=form" if data.startswith(FORM) else "application/json"
        sent = {"authorization": f"Bearer {key}", "content-type": kind}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=20)
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            try:
                read = response.read()
            except http.client.IncompleteRead as error:
                read = error.partial
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, read)
        finally:
            connection.close()

    def chat(self, **fields: Any) -> Answer:
        return self.ask("/v1/chat/completions", {**BODIES["/v1/chat/completions"], **fields})

    def reservations(self) -> int:
        """Requests that hold a slot of their key."""

        async def read() -> int:
            redis = Redis(self.redis_url)
            try:
                return int(await redis.call("HLEN", reservations_key("default")))
            finally:
                await redis.close()

        return asyncio.run(read())

    def rows(self) -> list[RequestRecord]:
        """The ledger's rows, newest first."""

        async def read() -> list[RequestRecord]:
            database = Database(self.database_url)
            try:
                return list(await Ledger(database).list(LedgerFilter(org="default"), limit=1000))
            finally:
                await database.close()

        return asyncio.run(read())


@contextmanager
def started(redis_url: str, **environ: str) -> Iterator[Platform]:
    """Start everything in a separate folder."""
    folder = short_folder()
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url, redis_url))
    sink = OTLPSink().start()
    with RecordingEngine() as engine:
        shared = {"QUARTERDECK_REDIS_URL": redis_url, "QUARTERDECK_DATABASE_URL": database_url, **environ}
        gateway = GatewayProcess(folder, CONFIG.format(engine=engine.url), {**shared, "PROVIDERS_KEY": PROVIDERS_KEY})
        paths = {"QUARTERDECK_STATE": str(folder / "state"), "QUARTERDECK_CONFIG": str(gateway.config)}
        worker = WorkerProcess(folder, {**shared, **paths, **sink.environment})
        try:
            worker.launch()
            gateway.start()
            yield Platform(folder, engine, gateway, worker, sink, redis_url, database_url)
        finally:
            gateway.stop()
            worker.stop()
    sink.stop()
    shutil.rmtree(folder)


async def _seed(database_url: str, redis_url: str) -> None:
    redis = Redis(redis_url)
    await redis.call("FLUSHDB")
    await redis.close()
    database = Database(database_url)
    await database.migrate()
    keys = KeyStore(database)
    await keys.create(secret=USER, name="user")
    await keys.create(secret=ADMIN, name="admin", is_admin=True)
    await keys.create(secret=BROKE, name="broke", budget=Budget(amount="0.000001", period="month"))
    for operation in Operation:
        limits = Limits(requests_per_minute=1)
        await keys.create(secret=f"{SPENT}{operation.word}", name=f"spent {operation.word}", limits=limits)
    await database.close()
