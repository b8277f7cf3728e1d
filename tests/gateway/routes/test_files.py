"""Files over HTTP: outages, bounds, and what an attacker sends."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.fakes import CONFIG, Answer, Client, FakePipeline, config, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore

TYPE = [("content-type", "multipart/form-data; boundary=xyz")]
Gateway = Callable[..., RequestLifecycle]


def form(content: bytes, filename: str = "a.txt", *, purpose: str = "user_data") -> bytes:
    return (
        b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%b\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n--xyz--\r\n'
        % (purpose.encode(), filename.encode(), content)
    )


@pytest.fixture
def gateway(tmp_path: Path, database: Database) -> Gateway:
    def make(settings: str = "", *, blobs: Blobs | None = None, database: Database = database) -> RequestLifecycle:
        pipeline = FakePipeline(config(CONFIG + settings))
        return create_app(parts(pipeline, database=database, blobs=blobs or FolderBlobs(tmp_path / "blobs")))

    return make


def left(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


async def create(app: RequestLifecycle, body: bytes, **options: object) -> Answer:
    return await Client(app).post("/v1/files", body, headers=TYPE, **options)


async def test_a_file_comes_back_as_an_attachment_that_no_browser_shows(gateway: Gateway) -> None:
    app, page = gateway(), b"<script>alert(1)</script>"
    made = (await create(app, form(page, "../../x\x1b\t%22é\u202e.html"))).json
    assert made["filename"] == 'x__"é_.html'
    answer = await Client(app).get(f"/v1/files/{made['id']}/content")
    assert answer.body == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('attachment; filename="x_____.html"; ')
    assert answer.headers["content-length"] == str(len(page))


@pytest.mark.parametrize(
    ("given", "status", "body"),
    [
        ("bytes=2-4", 206, b"cde"),
        ("bytes=8-", 206, b"ij"),
        ("bytes=-3", 206, b"hij"),
        ("bytes=0-99", 206, b"abcdefghij"),
        ("bytes=4-2", 200, b"abcdefghij"),
        ("bytes=0-1,4-5", 200, b"abcdefghij"),
        ("lines=1-2", 200, b"abcdefghij"),
    ],
)
async def test_ranges(gateway: Gateway, given: str, status: int, body: bytes) -> None:
    app = gateway()
    path = f"/v1/files/{(await create(app, form(b'abcdefghij'))).json['id']}/content"
    answer = await Client(app).get(path, headers=[("range", given)])
    assert (answer.status, answer.body) == (status, body)
    beyond = await Client(app).get(path, headers=[("range", "bytes=10-")])
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */10")


async def test_with_the_database_away_no_file_is_read(gateway: Gateway, tmp_path: Path) -> None:
    away = Database("sqlite+aiosqlite:////nowhere/at/all.db")
    answer = await create(gateway(database=away), form(b"x"))
    await away.close()
    assert (answer.status, answer.error["code"]) == (503, "database_unavailable")
    assert left(tmp_path) == []


async def test_with_the_storage_away_files_are_refused_and_others_are_not(
    gateway: Gateway, tmp_path: Path, database: Database
) -> None:
    (tmp_path / "file").write_bytes(b"")
    app = gateway(blobs=FolderBlobs(tmp_path / "file"))
    answer = await create(app, form(b"x"))
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert str(tmp_path) not in answer.body.decode()
    assert await FileStore(database).usage("default") == 0
    assert (await Client(app).get("/v1/files")).json["data"] == []


async def test_files_are_bounded_in_size_and_by_quota(gateway: Gateway, tmp_path: Path) -> None:
    app = gateway("files: {max_file_mb: 1, max_gb_per_org: 0.0015}\n")
    too_large = await create(app, form(b"x" * 1_100_000))
    assert (too_large.status, too_large.error["code"]) == (413, "request_too_large")
    assert (await create(app, form(b"x" * 1_000_000))).status == 200
    over = await create(app, form(b"x" * 1_000_000))
    assert (over.status, over.error["code"], over.error["type"]) == (
        429,
        "storage_quota_exceeded",
        "insufficient_quota",
    )
    assert "files.max_gb_per_org" in over.error["message"]
    assert len(left(tmp_path)) == 1


async def test_a_client_that_hangs_up_leaves_nothing(gateway: Gateway, tmp_path: Path, database: Database) -> None:
    body = form(b"x" * 3_000_000)
    client = Client(gateway())
    client.hang_up()  # after what it sends
    await client.post("/v1/files", headers=TYPE, pieces=[body[:1_000_000], body[1_000_000:2_500_000]], body_ends=False)
    assert client.answer.status == 0
    assert left(tmp_path) == []
    assert await FileStore(database).due_blobs(4e9) == []


async def test_a_wrong_purpose_leaves_nothing(gateway: Gateway, tmp_path: Path, database: Database) -> None:
    answer = await create(gateway(), form(b"x", purpose="everything"))
    assert (answer.status, answer.error["param"]) == (400, "purpose")
    assert left(tmp_path) == []
    assert await FileStore(database).due_blobs(4e9) == []


async def test_without_a_storage_files_are_not_served(database: Database) -> None:
    app = create_app(parts(database=database))
    answer = await create(app, form(b"x"))
    assert (answer.status, answer.error["code"]) == (501, "files_not_configured")
    assert answer.headers["x-should-retry"] == "false"
