"""A worker's credential acts as its key: while that is valid, with the request id that it names, on model routes."""

import time
from dataclasses import replace

import pytest
from tests.gateway.fakes import USER, Client, FakeKeyStore, FakePipeline, key_row, parts

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.job_credentials import JobCredentials, keeping_priority
from quarterdeck.protocol.job_credentials import SECONDS, JobClaims, sign

SECRET = b"s" * 32
REQUEST = "req_" + "a" * 32
ASK = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}


def claims(key: str = "key_user", org: str = "default", request: str = REQUEST, priority: int | None = -1) -> JobClaims:
    """Of a credential that is valid now."""
    return JobClaims(key, org, "job_1", request, time.time() + SECONDS, priority=priority)


class Secret:
    is_away = False

    async def read(self) -> bytes:
        if self.is_away:
            raise ServiceUnavailableError("away")
        return SECRET


class Bench:
    def __init__(self) -> None:
        self.keys = FakeKeyStore()
        self.keys.put(USER, key_row(id="key_user", priority=3))
        self.secret = Secret()
        self.pipeline = FakePipeline()
        made = parts(self.pipeline, keys=self.keys)
        made = replace(made, job_credentials=JobCredentials(made.authenticator, self.secret))
        self._app = create_app(made)

    def client(self, given: JobClaims | None = None, secret: bytes = SECRET) -> Client:
        return Client(self._app, sign(given or claims(), secret))

    async def post(self, path: str, given: JobClaims | None = None, secret: bytes = SECRET) -> tuple[int, str | None]:
        answer = await self.client(given, secret).post(path, ASK)
        return answer.status, None if answer.status == 200 else answer.error["code"]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_credential_acts_as_its_key_with_its_request_id_and_priority(bench: Bench) -> None:
    answer = await bench.client().post("/v1/chat/completions", ASK)
    assert answer.status == 200
    assert answer.headers["x-request-id"] == REQUEST
    ((head, _),) = bench.pipeline.calls
    assert (head.request_id, head.principal.key, head.principal.priority) == (REQUEST, "key_user", -1)


async def test_without_a_priority_the_keys_own_is_kept(bench: Bench) -> None:
    await bench.post("/v1/chat/completions", claims(priority=None))
    assert bench.pipeline.calls[0][0].principal.priority == 3


async def test_a_revoked_key_a_missing_one_and_one_of_another_organisation_are_refused(bench: Bench) -> None:
    chat = "/v1/chat/completions"
    for given in (claims(key="key_gone"), claims(org="acme")):
        assert (await bench.post(chat, given))[0] == 401
    bench.keys.put(USER, key_row(id="key_user", revoked=1.0))
    assert await bench.post(chat) == (401, "invalid_api_key")
    assert bench.pipeline.calls == []


async def test_a_forged_or_old_credential_is_refused(bench: Bench) -> None:
    chat = "/v1/chat/completions"
    assert await bench.post(chat, secret=b"t" * 32) == (401, "invalid_job_credential")
    old = JobClaims("key_user", "default", "job_1", "req_1", time.time() - 3600)
    assert await bench.post(chat, old) == (401, "invalid_job_credential")


async def test_a_credential_opens_no_route_that_manages_objects(bench: Bench) -> None:
    assert (await bench.client().get("/v1/conversations/conv_1")).status == 401


async def test_a_credential_that_cannot_be_checked_now_is_a_503(bench: Bench) -> None:
    bench.secret.is_away = True
    assert await bench.post("/v1/chat/completions") == (503, "auth_unavailable")


async def test_a_key_that_is_read_again_does_not_raise_a_jobs_priority(bench: Bench) -> None:
    principal = replace(await parts(keys=bench.keys).authenticator.principal_of("key_user", org="default"), priority=-1)

    async def reread(*_: object) -> object:
        return replace(principal, priority=3)

    assert (await keeping_priority(reread)(principal, 2)).priority == -1  # type: ignore[arg-type]
    own = replace(principal, priority=1)
    assert (await keeping_priority(reread)(own, 2)).priority == 3  # type: ignore[arg-type]
