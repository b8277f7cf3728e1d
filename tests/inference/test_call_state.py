"""What Redis keeps of a running call."""

from tests.inference.bench import Bench
from tests.inference.engines import and_wait, counting
from tests.inference.making import SAID, STREAM
from tests.inference.reading import Pieces
from tests.net.upstream import Upstream, answering

from quarterdeck.accounting import redis_keys


async def test_what_is_noted_of_a_stream_under_way_is_what_was_seen(bench: Bench) -> None:
    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        said = b""
        async with Pieces(reply.stream) as pieces:
            while b"there" not in said:
                said += await anext(pieces)
            assert await bench.settlement._leases.renew()
            (data,) = await bench.redis.call("HVALS", redis_keys.reservations_key("default"))
            assert b'"status":"lost"' in data
            assert b'"output_tokens":2' in data
            assert b'"usage_source":"estimated"' in data
        await bench.record()
