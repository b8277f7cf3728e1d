"""The worker on a Redis Cluster: each org's records in another slot."""

from collections.abc import Iterator

import pytest
from tests.records import a_record
from tests.redis_deployments import ClusterDeployment, running
from tests.worker.bench import SINK, a_bench, eventually
from tests.worker.bench import running as running_loops

from quarterdeck.accounting import commit
from quarterdeck.accounting.redis_keys import cold_key, stream_key, tail_key, tailing_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.content import Content, encode
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.resources.requests.deletion import ContentDeletion
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.ledger import LedgerFilter
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.worker.budget_rebuild import rebuild
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.streams import replay_dead
from quarterdeck.worker.trace_deletion import delete_waiting_traces


@pytest.fixture
def cluster() -> Iterator[ClusterDeployment]:
    with running(ClusterDeployment) as deployment:
        yield deployment


async def test_a_cluster_that_looks_like_one_server_is_read_too(sqlite_url: str) -> None:
    """One node, or a proxy that hides several: only a command over several orgs tells (CROSSSLOT)."""
    with running(ClusterDeployment, nodes=1) as one:
        async with a_bench(f"redis://127.0.0.1:{one.nodes[0].port}", sqlite_url) as bench:
            bench.orgs[:] = ["default", "acme", "umbrella"]
            await bench.append(*[a_record(org=org) for org in bench.orgs])
            async with running_loops(bench.ledger_loop()):
                for org in bench.orgs:

                    async def is_empty(org: str = org) -> bool:
                        return await bench.waiting(stream_key(org)) == 0

                    await eventually(is_empty)


async def test_records_of_many_orgs_reach_the_ledger(cluster: ClusterDeployment, sqlite_url: str) -> None:
    async with a_bench(cluster.url, sqlite_url) as bench:
        bench.orgs[:] = ["default", *[f"org{number}" for number in range(20)]]
        records = [a_record(org=org) for org in bench.orgs for _ in range(3)]
        await bench.append(*records)
        async with running_loops(bench.ledger_loop(), bench.ledger_loop("worker_b")):
            for org in bench.orgs:

                async def is_empty(org: str = org) -> bool:
                    return await bench.waiting(stream_key(org)) == 0

                await eventually(is_empty)
            late = a_record(org="org7")  # it arrives while the worker waits
            await bench.append(late)

            async def has_come() -> bool:
                return await bench.waiting(stream_key("org7")) == 0

            await eventually(has_come)
        for org in bench.orgs:
            rows = {row.id for row in await bench.ledger.list(LedgerFilter(org=org), limit=100)}
            assert rows == {record.id for record in [*records, late] if record.org == org}
            await bench.redis.call("SADD", cold_key(org), "4 org")
            assert await rebuild(bench.redis, bench.database, org) == 1
            assert await replay_dead(bench.redis, org) == 0


async def test_contents_tails_and_deletions_stay_in_their_orgs_slot(
    cluster: ClusterDeployment, sqlite_url: str
) -> None:
    async with a_bench(cluster.url, sqlite_url) as bench:
        bench.orgs[:] = ["default", *[f"org{number}" for number in range(10)]]
        store, redactor = ContentStore(bench.database), Redactor()
        deletion = ContentDeletion(store, StoredObjects(bench.database), bench.redis)
        content = encode(Content(level="full", input=b'{"messages":[]}'))
        kept, gone = {}, {}
        for org in bench.orgs:
            kept[org] = [a_record(org=org, content="full", user="v", started=1.0) for _ in range(3)]
            gone[org] = a_record(org=org, content="full", user="u", started=1.0)
            for record in (*kept[org], gone[org]):
                await commit.settle(bench.redis, record, ScopeSet(org), content)
            await bench.redis.call("SET", tailing_key(org), "1")
            assert await deletion.delete("user", "u", org=org, key="key_1") == 1
        loop = bench.ledger_loop(sinks=[SINK])
        loop._contents = ContentIntake(bench.redis, store, lambda: redactor, bench.metrics)
        async with running_loops(loop):
            for org in bench.orgs:

                async def is_empty(org: str = org) -> bool:
                    return await bench.waiting(stream_key(org)) == 0

                await eventually(is_empty)
        for org in bench.orgs:
            ids = [record.id for record in kept[org]]
            assert set(await store.retrieve([*ids, gone[org].id], org=org)) == set(ids)
            reply = await bench.redis.call("XREAD", "COUNT", "9", "STREAMS", tail_key(org), "0-0")
            assert len(reply[0][1]) == 4
            await store.delete("user", "v", org=org, key="key_1")
            deletions = await store.deletions([org], since=0.0)
            assert await delete_waiting_traces(bench.redis, org, SINK, deletions) == 3
