"""A gateway process with a storage of files, and a client that sends as slowly and as wrongly as a test wants."""

import asyncio
import http.client
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import text
from tests.platform import GatewayProcess
from tests.servers import RedisServer

from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import CLAIM_SECONDS, FileStore
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.uploads import UploadStore
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.file_sweep_loop import FileSweepLoop

KEY = "sk-qd-user"
CONFIG = """
models: [{name: chat, endpoints: [{url: "http://127.0.0.1:9"}]}]
files: {max_file_mb: 600}
"""
MIB = 1024 * 1024
SECONDS = 100.0
"""Each wait is for a state, and ends as soon as it is reached; below pytest-timeout's, so that it says what is not."""
TYPE = "multipart/form-data; boundary=xyz"
PURPOSE = b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
END = b"\r\n--xyz--\r\n"


def begin(name: str = "file") -> bytes:
    """A form up to the content of its file."""
    head = b'--xyz\r\nContent-Disposition: form-data; name="%b"; filename="a.bin"\r\n\r\n' % name.encode()
    return head if name == "data" else PURPOSE + head


class FilesStack:
    """`blobs`: the storage's address. `environ`: what else the gateway is given."""

    def __init__(
        self, folder: Path, redis: RedisServer, database_url: str, blobs: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.database_url = folder, database_url
        self.gateway = GatewayProcess(
            folder,
            CONFIG,
            {
                "QUARTERDECK_REDIS_URL": redis.url(0),
                "QUARTERDECK_DATABASE_URL": database_url,
                "QUARTERDECK_BLOBS": blobs,
                **(environ or {}),
            },
            ready_path="/healthz",
        )
        asyncio.run(self._seed())
        self.gateway.start()

    async def _seed(self) -> None:
        database = Database(self.database_url)
        await database.migrate()
        await KeyStore(database).create(secret=KEY, name="user")
        await database.close()

    def stop(self) -> None:
        self.gateway.stop()

    def restart_after_kill(self) -> None:
        self.gateway.kill()
        self.gateway.start()

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        made = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=SECONDS)
        try:
            yield made
        finally:
            made.close()

    def send(self, path: str, body: Iterable[bytes], content_type: str = TYPE) -> tuple[int, Any]:
        """POST a body of a length that is not stated."""
        with self.connection() as connection:
            headers = {"authorization": f"Bearer {KEY}", "content-type": content_type}
            connection.request("POST", path, iter(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        return self.send(path, [json.dumps(body).encode()], "application/json")

    def create(self, content: Iterable[bytes]) -> Any:
        """The object of a new file."""
        status, made = self.send("/v1/files", form(content))
        assert status == 200, made
        return made

    def read(self, file_id: str) -> Iterator[bytes]:
        with self.connection() as connection:
            headers = {"authorization": f"Bearer {KEY}"}
            connection.request("GET", f"/v1/files/{file_id}/content", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200
            while piece := answer.read(MIB):
                yield piece

    def half_sent(self, path: str, content: bytes, *, name: str = "file", length: int | None = None) -> socket.socket:
        """A connection over which half a form was sent. `length`: as its head states it. None: it states none."""
        made = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=SECONDS)
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: {TYPE}\r\n{framing}"
        body = begin(name) + content
        made.sendall(f"{head}\r\n\r\n".encode() + (b"%x\r\n%b\r\n" % (len(body), body) if length is None else body))
        return made

    # what is left

    def rows(self, query: str) -> list[Any]:
        async def run() -> list[Any]:
            database = Database(self.database_url)
            try:
                async with database.connect() as connection:
                    return list(await connection.execute(text(query)))
            finally:
                await database.close()

        return asyncio.run(run())

    def on_its_way(self, kind: str) -> int:
        """Blobs of a kind that were announced and belong to nothing."""
        return len(self.rows(f"SELECT name FROM unclaimed_blobs WHERE name LIKE '{kind}/%'"))

    def used(self) -> int:
        """Bytes that count toward the quota."""
        return sum(row.bytes for row in self.rows("SELECT bytes FROM file_usage"))

    def sweep(self, blobs: Blobs) -> set[str]:
        """What the worker removes in a day. Returns the blobs that are left."""

        async def run() -> set[str]:
            database = Database(self.database_url)
            leases = LeaseStore(database, "worker")
            day = CLAIM_SECONDS + 1
            condition = Condition("files")
            loop = FileSweepLoop(
                FileStore(database), UploadStore(database), blobs, leases, condition, wall=lambda: time.time() + day
            )
            await loop.turn()
            assert condition.reason == ""
            left = {entry.name for kind in ("files/", "parts/") for entry in [e async for e in blobs.entries(kind)]}
            await database.close()
            return left

        return asyncio.run(run())

    # its memory

    def reset_peak(self) -> float:
        """Begin to measure anew. Returns the memory now, in MiB."""
        (self._proc / "clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak(self) -> float:
        """The most memory since then, in MiB."""
        return self._status("VmHWM")

    def open_blobs(self) -> list[str]:
        """Files of the storage that the gateway has open."""
        found = []
        for each in (self._proc / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.readlink(each))
        return [path for path in found if "/blobs/" in path]

    @property
    def _proc(self) -> Path:
        assert self.gateway.process is not None
        return Path(f"/proc/{self.gateway.process.pid}")

    def _status(self, name: str) -> float:
        lines = (self._proc / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def form(content: Iterable[bytes], name: str = "file") -> Iterator[bytes]:
    yield begin(name)
    yield from content
    yield END
