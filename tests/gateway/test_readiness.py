"""When a gateway is ready, and what it reports."""

from typing import Any

import pytest
from tests.gateway.fakes import FakeDatabase, FakeEndpoints, FakeRedis, config, endpoint

from quarterdeck.gateway.readiness import Readiness
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.redis import RedisRefusesError, RedisUnavailableError
from quarterdeck.settings.live import Live

ONE = "models: [{name: chat, engine: {source: ./chat}}]"


class Bench:
    def __init__(self, **gateway: Any) -> None:
        self.now = 0.0
        self.redis, self.database = FakeRedis(), FakeDatabase()
        self.endpoints = FakeEndpoints(endpoint())
        self.is_draining = False
        self.error: str | None = None
        self.subject = Readiness(
            redis=self.redis,
            database=self.database,
            directory=Live(Directory.of(config(**gateway))),
            endpoints=self.endpoints,
            is_draining=lambda: self.is_draining,
            config_error=lambda: self.error,
            clock=lambda: self.now,
        )

    async def status(self) -> tuple[bool, str]:
        self.now += 2
        report = await self.subject.report()
        return report.is_ready, report.status


async def test_one_ready_model_is_enough() -> None:
    assert await Bench().status() == (True, "degraded")


async def test_no_ready_model_is_not_ready() -> None:
    bench = Bench()
    for state in ("starting", "draining"):
        bench.endpoints.endpoints = [endpoint(state=state)]
        assert await bench.status() == (False, "starting")
    bench.endpoints.endpoints = []
    assert await bench.status() == (False, "starting")


async def test_an_endpoint_that_rests_is_not_ready() -> None:
    bench = Bench()
    bench.endpoints.endpoints[0].breaker.open_until = 1e12
    report = await bench.subject.report()
    assert (report.is_ready, report.models["chat"].state) == (False, "resting")


async def test_redis_and_the_database_must_have_answered_once() -> None:
    bench = Bench()
    bench.database.is_away = True
    assert await bench.status() == (False, "starting")
    bench.database.is_away = False
    assert await bench.status() == (True, "degraded")
    bench.database.is_away, bench.redis.error = True, RedisUnavailableError("away")
    assert await bench.status() == (True, "degraded")
    report = await bench.subject.report()
    assert (report.parts["redis"], report.parts["database"]) == ("away", "away")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RedisUnavailableError("WRONGPASS … at 10.0.0.7", "WRONGPASS"), "away (WRONGPASS)"),
        (RedisRefusesError("OOM command not allowed", "OOM"), "refuses commands (OOM)"),
    ],
    ids=str,
)
async def test_why_redis_does_not_serve_is_one_word(error: RedisUnavailableError, state: str) -> None:
    """The route needs no key: an error may name addresses and users."""
    bench = Bench()
    await bench.status()
    bench.redis.error = error
    bench.now += 2
    report = await bench.subject.report()
    assert (report.is_ready, report.status, report.parts["redis"]) == (True, "degraded", state)


async def test_redis_is_needed_where_the_file_says_deny() -> None:
    bench = Bench(on_redis_down="deny")
    assert (await bench.status())[0]
    bench.redis.error = RedisUnavailableError("away")
    assert not (await bench.status())[0]


async def test_a_draining_gateway_is_not_ready() -> None:
    bench = Bench()
    bench.is_draining = True
    assert await bench.status() == (False, "draining")


async def test_a_refused_file_is_said_and_takes_nobody_out() -> None:
    bench = Bench()
    bench.error = "quarterdeck.yaml:3: models: Field required\nquarterdeck.yaml:4: …"
    report = await bench.subject.report()
    assert report.is_ready
    assert report.parts["config"] == "refused, keeping the previous one: quarterdeck.yaml:3: models: Field required"


async def test_however_often_it_is_asked_the_parts_are_asked_once_a_second() -> None:
    bench = Bench()
    for _ in range(10):
        await bench.subject.report()
    assert bench.database.pings == 1


@pytest.mark.parametrize("state", ["ready", "starting"])
async def test_the_best_endpoint_of_a_model_speaks_for_it(state: Any) -> None:
    bench = Bench()
    bench.endpoints.endpoints = [endpoint("a", state="draining"), endpoint("b", state=state, detail="why")]
    model = (await bench.subject.report()).models["chat"]
    assert (model.state, model.detail) == (state, "why")


async def test_a_report_is_held_for_a_second_unless_a_drain_or_a_reload_comes() -> None:
    bench = Bench()
    first = await bench.subject.held_report()
    bench.endpoints.endpoints = []
    assert await bench.subject.held_report() is first
    bench.error = "quarterdeck.yaml:1: wrong"
    assert (await bench.subject.held_report()).parts["config"] != "ready"
    bench.is_draining = True
    assert (await bench.subject.held_report()).status == "draining"
    bench.is_draining, bench.error = False, None
    bench.now += 1
    assert (await bench.subject.held_report()).status == "unavailable"


async def test_a_gateway_whose_records_could_be_saved_nowhere_is_not_ready() -> None:
    bench = Bench()
    assert (await bench.status())[0]
    bench.subject.can_record = lambda: False
    bench.now += 2
    report = await bench.subject.report()
    assert not report.is_ready
    assert report.parts["spool"].startswith("full")


async def test_records_that_wait_in_the_spool_degrade() -> None:
    bench = Bench()
    bench.subject.directory.replace(Directory.of(config(ONE)))
    assert await bench.status() == (True, "ready")
    assert "spool" not in (await bench.subject.report()).parts
    bench.subject.spooled = lambda: 3
    assert await bench.status() == (True, "degraded")
    assert (await bench.subject.report()).parts["spool"] == "3 records wait for Redis"


async def test_a_gateway_whose_models_are_gone_is_unavailable_and_not_starting() -> None:
    bench = Bench()
    assert (await bench.status())[0]
    bench.endpoints.endpoints[0].breaker.record_health(is_alive=False, error="connection failed")
    assert await bench.status() == (False, "unavailable")
    assert (await bench.subject.report()).as_dict()["models"]["chat"]["detail"] == "connection failed"


async def test_a_key_that_is_not_set_is_visible() -> None:
    bench = Bench()
    bench.endpoints.endpoints.append(endpoint("emb#1", "org/emb", problem="environment variable X is not set"))
    report = await bench.subject.report()
    assert (report.status, report.models["org/emb"].detail) == ("degraded", "environment variable X is not set")


class FakeCluster:
    def __init__(self) -> None:
        self.waiting: str | None = None
        self.stale: str | None = None


async def test_in_a_cluster_a_gateway_without_ready_models_is_ready() -> None:
    bench = Bench()
    bench.subject.cluster = cluster = FakeCluster()
    bench.endpoints.endpoints = []
    cluster.waiting = "waiting for the ConfigMap ns/config: it does not exist yet"
    assert await bench.status() == (False, "starting")
    assert (await bench.subject.report()).parts["cluster"] == cluster.waiting
    cluster.waiting = None
    assert await bench.status() == (True, "degraded")


async def test_in_a_cluster_a_model_at_zero_is_well() -> None:
    bench = Bench()
    bench.subject.cluster = cluster = FakeCluster()
    names = ("chat", "org/emb", "pirate")
    bench.endpoints.endpoints = [endpoint(f"{name}#1", name, "idle") for name in names]
    assert await bench.status() == (True, "ready")
    cluster.stale = "not followed, keeping what is known: status 403"
    assert await bench.status() == (True, "degraded")


async def test_a_held_report_is_made_anew_when_the_cluster_is_known() -> None:
    bench = Bench()
    bench.subject.cluster = cluster = FakeCluster()
    cluster.waiting = "waiting for EndpointSlices: not listed yet"
    assert not (await bench.subject.held_report()).is_ready
    cluster.waiting = None
    assert (await bench.subject.held_report()).is_ready
