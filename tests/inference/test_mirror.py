"""Requests that are sent to a second model as well."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench
from tests.inference.engines import Held
from tests.inference.making import DONE, SAID, answer, by, usage
from tests.inference.reading import read
from tests.net.upstream import Peer, Upstream, answering, chunk, response, stream_head, streamed, until

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

MIRRORED = "routes: [{name: r, targets: [{model: m}], mirror: {model: n, share: 1}}]"


@pytest.mark.parametrize("asked", [by("r"), by("r", stream=True)], ids=["plain", "stream"])
async def test_a_mirrored_request_is_one_of_its_own_and_on_nobodys_account(bench: Bench, asked: dict[str, Any]) -> None:
    bench.configure(MIRRORED)
    said = streamed(*SAID, usage(), DONE) if asked.get("stream") else response(answer())
    async with Upstream(answering(said)) as engine, Upstream(answering(said)) as other:
        bench.add(engine)
        bench.add(other, model="n")
        reply = await bench.ask(asked)
        if reply.stream is not None:
            assert await read(reply.stream) == b"".join(SAID) + DONE
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        own, copy = records["m"], records["n"]
        assert other.requests[0].json["model"] == "n"
        assert (copy.key, copy.team, copy.tags, copy.route) == ("mirror", "mirror", ("mirror",), "r")
        assert (copy.status, copy.cost) == ("ok", Decimal(7 * 10 + 3 * 20) / 1_000_000)
        assert (own.key, own.tags) == ("key_1", ())
        assert own.id != copy.id
        assert other.requests[0].header("x-request-id") == copy.id


async def test_a_mirror_that_fails_is_recorded_and_nobody_notices(bench: Bench) -> None:
    bench.configure(MIRRORED)
    async with Upstream(answering(response(answer()))) as engine, Upstream(answering(response(b"", status=500))) as bad:
        bench.add(engine)
        bench.add(bad, model="n")
        assert (await bench.ask(by("r"))).status == 200
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        assert (records["m"].status, records["n"].status, records["n"].http_status) == ("ok", "error", 502)


async def test_where_nobody_serves_the_mirror_nothing_is_sent(bench: Bench) -> None:
    bench.configure(MIRRORED)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(by("r"))
        assert (await bench.record()).model == "m"


async def test_a_mirror_that_is_slow_is_sent_no_more(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, max_mirrored=1)
    bench.configure(MIRRORED)
    held = Held(response(answer()))
    async with Upstream(answering(*[response(answer())] * 3)) as engine, Upstream(held.script) as slow:
        bench.add(engine)
        bench.add(slow, model="n")
        for _ in range(3):
            await bench.ask(by("r"))
        await slow.arrived.wait()
        assert len(slow.requests) == 1
        held.gates[0].set()
        await until(lambda: len(bench.seen) == 4)
        await bench.records()


async def test_a_mirrored_stream_that_breaks_off_is_recorded_once(bench: Bench) -> None:
    bench.configure(MIRRORED)

    async def breaks(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(SAID[0]))
        peer.reset()

    good = streamed(*SAID, usage(), DONE)
    async with Upstream(answering(good)) as engine, Upstream(answering(breaks)) as other:
        bench.add(engine)
        bench.add(other, model="n")
        await bench.stream(by("r"))
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        assert (records["n"].status, records["n"].usage_source) == ("error", "estimated")
