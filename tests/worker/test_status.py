"""The worker's status port."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.status import StatusApp


async def fine() -> None:
    return None


async def broken() -> None:
    raise ConnectionError("refused")


def client_of(**checks: Callable[[], Awaitable[None]]) -> httpx.AsyncClient:
    refreshed: list[int] = []

    async def refresh() -> None:
        refreshed.append(1)

    app = StatusApp(checks, refresh, lambda: b"refreshed %d\n" % len(refreshed))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")


async def test_it_is_ready_if_every_part_is() -> None:
    async with client_of(redis=fine, database=fine) as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "parts": {"redis": "ok", "database": "ok"}})


async def test_a_failed_part_is_named_and_liveness_is_unaffected() -> None:
    async with client_of(redis=fine, database=broken) as client:
        answer = await client.get("/readyz")
        assert (await client.get("/healthz")).status_code == 200
    assert (answer.status_code, answer.json()["parts"]) == (503, {"redis": "ok", "database": "refused"})


async def test_a_job_that_fails_is_named_and_has_no_effect_on_readiness() -> None:
    traces, is_away = Condition("traces"), True

    async def refresh() -> None:
        return None

    async def check() -> None:
        if is_away:
            raise ConnectionError("refused")

    async def parts() -> dict[str, str]:
        answer = await client.get("/readyz")
        assert answer.json()["ready"] is not is_away
        found: dict[str, str] = answer.json()["parts"]
        return found

    jobs = {"traces": traces, "ledger": Condition("ledger")}
    app = StatusApp({"redis": check}, refresh, lambda: b"", jobs=jobs, held_seconds=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        traces.failed("Redis is away")
        assert await parts() == {"redis": "refused"}
        is_away = False
        assert await parts() == {"redis": "ok"}  # its failure is of before
        traces.failed("HTTP 401 wrong key")
        assert await parts() == {"redis": "ok", "traces": "HTTP 401 wrong key"}
        traces.ok()
        assert await parts() == {"redis": "ok"}


async def test_metrics_are_refreshed_before_they_are_rendered() -> None:
    async with client_of() as client:
        answer = await client.get("/metrics")
    assert answer.text == "refreshed 1\n"
    assert answer.headers["content-type"].startswith("text/plain")


async def test_metrics_are_refreshed_once_a_second() -> None:
    async with client_of() as client:
        answers = await asyncio.gather(*[client.get("/metrics") for _ in range(20)])
    assert {answer.text for answer in answers} == {"refreshed 1\n"}


async def test_other_paths_and_methods() -> None:
    async with client_of() as client:
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.post("/healthz")).status_code == 405


async def test_a_check_that_hangs_times_out() -> None:
    app = StatusApp({"redis": asyncio.Event().wait}, fine, lambda: b"", check_seconds=0.01)  # type: ignore[dict-item]  # its result is ignored
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        assert (await client.get("/readyz")).json()["parts"] == {"redis": "timed out"}


async def test_parts_are_checked_once_a_second_however_often_they_are_asked_for() -> None:
    checks: list[int] = []

    async def check() -> None:
        checks.append(1)
        await asyncio.sleep(0)

    async with client_of(redis=check) as client:
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(checks) <= 2, "fifty requests may take more than a second on a busy machine"


async def test_metrics_need_the_token_where_one_is_set_and_probes_do_not() -> None:
    app = StatusApp({"redis": fine}, fine, lambda: b"metrics", metrics_token="a-token-of-some-length")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        for given in (None, "Bearer wrong", "Bearer a-token-of-some-lengt", "Basic a-token-of-some-length"):
            answer = await client.get("/metrics", headers={} if given is None else {"authorization": given})
            assert (answer.status_code, answer.json()) == (401, {"status": "unauthorized"})
        answer = await client.get("/metrics", headers={"authorization": "Bearer a-token-of-some-length"})
        assert (answer.status_code, answer.text) == (200, "metrics")
        assert (await client.get("/readyz")).status_code == 200
