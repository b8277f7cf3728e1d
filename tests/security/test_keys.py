"""Authentication of keys.

CVE-2026-42208 (SQL injection before authentication), CVE-2026-35030 (a cache keyed by a token's first twenty
characters), GHSA-69x8 (a stolen digest accepted as a key), CVE-2026-59822 (an empty result accepted as success).
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count

import pytest
from tests.gateway.fakes import ADMIN, USER, Client, FakeKeys, config, key_row, parts

from quarterdeck import ids
from quarterdeck.errors import AuthenticationError
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.settings.live import Live
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyRow, KeyStore

SECRET = "sk-qd-Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2FycGx5"
INJECTIONS = (
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "x'; DROP TABLE api_keys; --",
    "x' UNION SELECT * FROM api_keys --",
    "x'||(SELECT digest FROM api_keys)||'",
    "\\' OR 1=1 --",
    "%' OR '1' LIKE '1",
    "%",
    "_" * 64,
    "$1",
    ":digest",
    "?",
    "{digest}",
    "0' OR SLEEP(5)='",
    "null",
    "undefined",
    "None",
    "true",
    "*",
)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    subject = Database(sqlite_url)
    await subject.migrate()
    yield subject
    await subject.close()


@pytest.fixture
async def client(database: Database) -> Client:
    """The app over a real database with two keys."""
    keys = KeyStore(database)
    await keys.create(secret=USER, name="user")
    await keys.create(secret=ADMIN, name="admin", is_admin=True)
    made = parts(keys=keys, database=database)
    return Client(create_app(made), key=None)


def authenticator(keys: FakeKeys, **bounds: int) -> Authenticator:
    """A directory with a fixed configuration: `known` ignores keys read under another one."""
    return Authenticator(keys, Live(config()), **bounds)


async def test_no_key_is_a_statement(client: Client, database: Database) -> None:
    """CVE-2026-42208."""
    for text in INJECTIONS:
        for secret in (text, f"sk-qd-{text}", f"{USER}{text}", f"{text}{USER}"):
            for path in ("/v1/models", "/v1/chat/completions", "/admin/keys"):
                answer = await client.post(path, {}, headers=[("authorization", f"Bearer {secret}")])
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key"), (secret, path)
    assert (await client.get("/v1/models", headers=[("authorization", f"Bearer {USER}")])).status == 200
    assert len((await KeyStore(database).list(org="default", limit=100)).rows) == 2


async def test_no_parameter_of_the_admin_api_is_a_statement(client: Client, database: Database) -> None:
    bearer = [("authorization", f"Bearer {ADMIN}"), ("content-type", "application/json")]
    for text in INJECTIONS:
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        for path in (
            f"/admin/keys?team={quoted}",
            f"/admin/keys?after={quoted}",
            f"/admin/usage?key={quoted}&team={quoted}&model={quoted}",
            f"/admin/teams?after={quoted}",
        ):
            answer = await client.get(path, headers=bearer)
            assert answer.status in (200, 400, 404), (path, answer)
            assert answer.status != 200 or answer.json["data"] == [] or "teams" in path, (path, answer)
        for method in ("GET", "DELETE", "POST"):
            answer = await client.request(method, f"/admin/keys/{text}".partition("?")[0], b"{}", headers=bearer)
            assert answer.status in (200, 400, 404, 405), (method, text, answer.body)
            assert '"digest"' not in answer.body.decode()
        answer = await client.post("/admin/keys", {"name": text}, headers=bearer)
        assert (answer.status, answer.json["name"]) == (201, text)
    found = await KeyStore(database).list(org="default", limit=100)
    assert len(found.rows) == 2 + len(INJECTIONS)
    assert all(row.revoked is None for row in found.rows)


async def test_only_a_whole_digest_is_ever_asked_for() -> None:
    """The time to reject a key does not depend on how much of it is correct: no secret is compared, and the look-up
    uses its SHA-256, which can't be approximated character by character."""
    asked: list[str] = []

    class Watched(FakeKeys):
        async def find_all(self, digests: Sequence[str]) -> dict[str, KeyRow]:
            asked.extend(digests)
            return {}

    subject = authenticator(Watched())
    for secret in ("x", "sk-qd-", *INJECTIONS, SECRET, SECRET[:-1], "\N{SNOWMAN}", "x" * 1000):
        with pytest.raises(AuthenticationError):
            await subject.authenticate(b"Bearer " + secret.encode())
    assert len(asked) == len(set(asked)) > 20
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in asked)


async def test_keys_that_share_a_beginning_or_an_end_are_different_keys() -> None:
    """CVE-2026-35030, with and without a cached key, on the fast path (`known`) and in ASGI (`authenticate`)."""
    keys = FakeKeys()
    keys.put(SECRET, key_row(id="key_first", is_admin=True))
    subject = authenticator(keys)
    assert (await subject.authenticate(f"Bearer {SECRET}".encode())).key == "key_first"
    close = [SECRET[:at] + "!" + SECRET[at + 1 :] for at in range(len(SECRET))]
    close += [SECRET[:at] for at in range(1, len(SECRET))] + [SECRET[at:] for at in range(1, len(SECRET))]
    close += [
        SECRET + "a",
        "a" + SECRET,
        SECRET + SECRET,
        SECRET.lower(),
        SECRET.upper(),
        f"{SECRET}\x00",
        f"{SECRET},",
    ]
    for secret in close:
        header = f"Bearer {secret}".encode()
        assert subject.known(header) is None, secret
        with pytest.raises(AuthenticationError):
            await subject.authenticate(header)
    keys.put(close[0], key_row(id="key_second"))
    subject = authenticator(keys)
    for secret, id in ((SECRET, "key_first"), (close[0], "key_second"), (SECRET, "key_first")):
        principal = await subject.authenticate(f"Bearer {secret}".encode())
        assert principal.key == id
        assert subject.known(f"Bearer {secret}".encode()) == principal


async def test_keys_whose_digests_share_a_beginning_are_different_keys() -> None:
    """A truncated digest as cache key can collide: these two share five hex digits."""
    seen: dict[str, str] = {}
    for number in count():
        secret = f"sk-qd-{number}"
        start = hashlib.sha256(secret.encode()).hexdigest()[:5]
        if start in seen:
            first, second = seen[start], secret
            break
        seen[start] = secret
    keys = FakeKeys()
    keys.put(first, key_row(id="key_first"))
    subject = authenticator(keys)
    await subject.authenticate(f"Bearer {first}".encode())
    assert subject.known(f"Bearer {second}".encode()) is None
    with pytest.raises(AuthenticationError):
        await subject.authenticate(f"Bearer {second}".encode())


async def test_a_digest_is_no_key() -> None:
    """GHSA-69x8: the contents of a stolen database do not grant access."""
    keys = FakeKeys()
    keys.put(SECRET, key_row())
    subject = authenticator(keys)
    await subject.authenticate(f"Bearer {SECRET}".encode())
    for stolen in (ids.digest(SECRET), ids.digest(SECRET).upper(), f"sha256:{ids.digest(SECRET)}"):
        assert subject.known(f"Bearer {stolen}".encode()) is None
        with pytest.raises(AuthenticationError):
            await subject.authenticate(f"Bearer {stolen}".encode())


async def test_no_key_at_all_is_nobodys_key() -> None:
    """CVE-2026-59822: an empty secret must not match an empty row."""
    keys = FakeKeys()
    keys.put("", key_row(is_admin=True))
    subject = authenticator(keys)
    for header in (
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer  ",
        b"Bearer \t ",
        b"bearer ",
        b" ",
        b"Basic ",
        b"Bearer\t",
    ):
        assert subject.known(header) is None
        with pytest.raises(AuthenticationError):
            await subject.authenticate(header)


async def test_a_key_that_is_over_is_not_known_before_asgi() -> None:
    keys = FakeKeys()
    row = key_row(id="key_it")
    keys.put(SECRET, row)
    subject = authenticator(keys)
    header = f"Bearer {SECRET}".encode()
    await subject.authenticate(header)
    for over in (replace(row, revoked=1.0), replace(row, expires=time.time() - 1)):
        keys.put(SECRET, over)
        subject.forget("key_it")
        with pytest.raises(AuthenticationError):
            await subject.authenticate(header)
        assert subject.known(header) is None


async def test_strangers_fill_no_memory() -> None:
    subject = authenticator(FakeKeys(), max_unknown=50)
    tries = [subject.authenticate(f"Bearer sk-{number}".encode()) for number in range(500)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(answer, AuthenticationError) for answer in answers)
    assert len(subject._cache.unknown) == 50
    assert (subject._cache.by_digest, subject._reader._running) == ({}, {})
