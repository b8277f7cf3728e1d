"""Requests of dead gateways become lost rows."""

import msgspec
import pytest
from tests.records import a_record
from tests.worker.bench import ORG, Bench, eventually, is_empty, running

from quarterdeck.accounting import admission, redis_keys
from quarterdeck.accounting.admission import Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.expiry_loop import ExpiryLoop


async def test_a_request_whose_gateway_died_becomes_a_lost_row(bench: Bench) -> None:
    record = a_record(status="lost", finish_reason=None)
    note = msgspec.json.encode(Note(record))
    await admission.reserve(bench.redis, Reservation(record.id, ScopeSet(ORG), note, 100, lease_seconds=0))
    condition = Condition("settling")
    expiry = ExpiryLoop(bench.redis, lambda: bench.orgs, condition, bench.metrics, grace_seconds=0)
    await expiry.turn()
    await expiry.turn()
    assert bench.metrics.lost.values[()] == 1
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert (await bench.ledger.retrieve(record.id, org=ORG)).status == "lost"


async def test_an_unexpected_error_does_not_end_the_loop(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.redis.call("SET", redis_keys.deadlines_key(ORG), "no sorted set")
    expiry = ExpiryLoop(bench.redis, lambda: bench.orgs, Condition("settling"), bench.metrics)
    await expiry.turn()
    assert "settling: " in caplog.text
    await bench.redis.call("DEL", redis_keys.deadlines_key(ORG))
    await expiry.turn()
