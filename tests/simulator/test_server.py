"""The server process over real sockets: what only shows on a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from tests.simulator.harness import Process, Raw, events, series, user

Start = Callable[..., Process]

STREAM: dict[str, Any] = {"messages": user("hello"), "max_tokens": 50, "ignore_eos": True, "stream": True}
PATH = "/v1/chat/completions"


@contextlib.asynccontextmanager
async def client_of(process: Process) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=process.url, timeout=20) as client:
        yield client


async def until(process: Process, name: str, value: float) -> None:
    """Wait until the process reports the value on /metrics."""
    async with client_of(process) as client:
        while series((await client.get("/metrics")).text)[name] != value:  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.01)


def sample(name: str) -> str:
    return f'{name}{{model_name="simulated",engine="0"}}'


async def faulty(process: Process, fault: str, body: dict[str, Any]) -> bytes:
    """Return the raw response to a request with the fault."""
    raw = await Raw.open(process.port)
    await raw.post(PATH, body, x_fault=fault)
    try:
        return await raw.rest()
    finally:
        await raw.close()


async def test_connections_that_break(start: Start) -> None:
    process = start()
    cut = await faulty(process, "cut=3", STREAM)
    assert cut.startswith(b"HTTP/1.1 200") and cut.count(b"data: ") == 1 + 3 + 1, "the last is half an event"
    assert not cut.endswith(b"\r\n")
    head = await faulty(process, "cut", STREAM)
    assert b"\r\n\r\n" in head and head.count(b"data: ") == 1
    for body in (STREAM, STREAM | {"stream": False}):
        with pytest.raises(ConnectionResetError):
            await faulty(process, "reset=3", body)
    assert await faulty(process, "refused", STREAM) == b""
    for fault in ("cut", "wrong-length"):
        plain = await faulty(process, fault, STREAM | {"stream": False})
        length = int(plain.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(plain.partition(b"\r\n\r\n")[2]) < length
    async with client_of(process) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(PATH, json=STREAM, headers={"x-fault": "cut=3"})
        assert (await client.post(PATH, json=STREAM)).content.endswith(b"data: [DONE]\n\n"), "others are served"
    await until(process, sample("vllm:num_requests_running"), 0)


async def test_a_closed_port_refuses_for_a_while(start: Start) -> None:
    process = start()
    kept = await Raw.open(process.port)
    assert await faulty(process, "refused=300ms", STREAM) == b""
    with pytest.raises(ConnectionRefusedError):
        await Raw.open(process.port)
    await kept.post(PATH, STREAM, connection="close")
    assert b"[DONE]" in await kept.rest(), "an open connection continues"
    await kept.close()
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            raw = await Raw.open(process.port)
            break
        await asyncio.sleep(0.02)
    await raw.post(PATH, STREAM, connection="close")
    assert b"[DONE]" in await raw.rest()
    await raw.close()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("body", [STREAM, STREAM | {"stream": False}])
async def test_a_client_that_goes_away_stops_the_engine(start: Start, reset: bool, body: dict[str, Any]) -> None:
    process = start("--inter-token-latency", "20ms")
    raw = await Raw.open(process.port)
    await raw.post(PATH, body | {"max_tokens": 3000})
    await until(process, sample("vllm:num_requests_running"), 1)
    await raw.close(reset=reset)
    await until(process, sample("vllm:num_requests_running"), 0)
    async with client_of(process) as client:
        page = series((await client.get("/metrics")).text)
    assert page[sample("quarterdeck_simulator_client_disconnects_total")] == 1
    assert page[sample("vllm:generation_tokens_total")] < 3000
    assert page['vllm:request_success_total{model_name="simulated",engine="0",finished_reason="abort"}'] == 1


async def test_who_goes_away_before_a_slow_first_byte_is_forgotten(start: Start) -> None:
    process = start()
    raw = await Raw.open(process.port)
    await raw.post(PATH, STREAM, x_fault="slow=1h")
    async with client_of(process) as client:
        while (await client.get("/load")).json()["server_load"] != 1:  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.01)
    await raw.close()
    await until(process, sample("quarterdeck_simulator_client_disconnects_total"), 1)


async def test_who_waits_for_a_place_and_goes_away_is_forgotten(start: Start) -> None:
    process = start("--max-num-seqs", "1", "--time-to-first-token", "1h")
    running, waiting = await Raw.open(process.port), await Raw.open(process.port)
    await running.post(PATH, STREAM)
    await until(process, sample("vllm:num_requests_running"), 1)
    await waiting.post(PATH, STREAM)
    await until(process, sample("vllm:num_requests_waiting"), 1)
    await waiting.close()
    await until(process, sample("vllm:num_requests_waiting"), 0)
    await running.close()
    await until(process, sample("vllm:num_requests_running"), 0)


async def test_a_stalled_stream_is_silent_until_its_client_goes(start: Start) -> None:
    process = start()
    raw = await Raw.open(process.port)
    await raw.post(PATH, STREAM, x_fault="stall=2")
    got = await raw.reader.readuntil(b"\n\n\r\n")
    assert len(events(got.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2])) == 1 + 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(raw.reader.read(1), 0.2)
    await raw.close()
    await until(process, sample("vllm:num_requests_running"), 0)


async def test_a_hung_health_check_hangs(start: Start) -> None:
    process = start()
    async with client_of(process) as client:
        await client.post("/admin/config", json={"health": "hang"})
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/health", timeout=0.2)
        await client.post("/admin/config", json={"health": "fail"})
        assert (await client.get("/health")).status_code == 503
        assert (await client.post(PATH, json=STREAM)).status_code == 200


async def test_a_crash_is_as_by_the_out_of_memory_killer(start: Start) -> None:
    process = start("--inter-token-latency", "1ms")
    raw = await faulty(process, "crash=4", STREAM)
    assert raw.count(b"data: ") == 1 + 4
    assert await process.ended() == 137


async def test_sigterm_drains_and_exits_with_0(start: Start) -> None:
    process = start("--inter-token-latency", "10ms")
    raw = await Raw.open(process.port)
    await raw.post(PATH, STREAM)
    await raw.reader.readuntil(b"\n\n\r\n")
    process.terminate()
    rest = await raw.rest()
    await raw.close()
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert await process.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        await Raw.open(process.port)


async def test_a_slow_drain_is_seen(start: Start) -> None:
    process = start("--drain-delay", "500ms")
    process.terminate()
    async with client_of(process) as client:
        while (await client.get("/endpoints")).json()["endpoints"][0]["state"] != "draining":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await client.post(PATH, json=STREAM)).status_code == 503
        assert process.is_running()
    assert await process.ended() == 0


async def test_a_drain_that_takes_too_long_is_ended(start: Start) -> None:
    process = start("--time-to-first-token", "1h", "--drain-timeout", "1s")
    raw = await Raw.open(process.port)
    await raw.post(PATH, STREAM)
    await until(process, sample("vllm:num_requests_running"), 1)
    process.terminate()
    assert await process.ended() == 0
    await raw.close()


async def test_a_wrong_start_says_why() -> None:
    with pytest.raises(AssertionError, match="kv-cache-size"):
        Process("--kv-cache-size", "1")


def test_it_starts_small(start: Start) -> None:
    process = start()
    with open(f"/proc/{process.pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 60_000


async def test_hundreds_of_streams_run_side_by_side(start: Start) -> None:
    process = start("--inter-token-latency", "20ms", "--max-num-seqs", "400")

    async def one() -> float:
        raw = await Raw.open(process.port)
        began = asyncio.get_running_loop().time()
        await raw.post(PATH, STREAM | {"max_tokens": 20}, connection="close")
        data = await raw.rest()
        await raw.close()
        assert data.count(b"data: ") == 1 + 20 + 1
        return asyncio.get_running_loop().time() - began

    took = await asyncio.gather(*(one() for _ in range(300)))
    assert min(took) >= 0.37
    async with client_of(process) as client:
        page = series((await client.get("/metrics")).text)
    assert page[sample("vllm:generation_tokens_total")] == 6000
