"""What a model's name stands for, and which keys may use it."""

import json
from decimal import Decimal

import pytest
from tests.inference.bench import BACKED, Bench, refused
from tests.inference.making import CHAT, a_principal, answer, as_json, by, change
from tests.net.upstream import Upstream, answering, response

from quarterdeck.errors import NotFoundError
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.loading import parse


async def test_an_adapter_that_was_loaded_at_run_time_is_found_where_it_is(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as one, Upstream(answering(response(answer()))) as other:
        change(bench.add(one, other)[1], adapters=frozenset({"pirate"}))
        await bench.ask({**CHAT, "model": "pirate"})
        assert (one.requests, len(other.requests)) == ([], 1)
        record = await bench.record()
        assert (record.model, record.endpoint, record.price_input) == ("pirate", "e#2", Decimal(1))


async def test_an_unknown_model_is_not_found_and_leaves_no_record(bench: Bench) -> None:
    error = await refused(NotFoundError, bench, {**CHAT, "model": "gpt-5"})
    assert (error.param, error.code) == ("model", "model_not_found")
    assert "'gpt-5'" in error.message
    assert await bench.records() == []


async def test_a_name_without_end_is_not_repeated_whole(bench: Bench) -> None:
    error = await refused(NotFoundError, bench, {**CHAT, "model": "x" * 1_000_000})
    assert len(error.message) < 1000


@pytest.mark.parametrize("allowed", [{"m"}, {"gpt-4o-mini"}, {"other", "m"}])
async def test_a_key_may_use_what_it_is_allowed_to(bench: Bench, allowed: set[str]) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask({**CHAT, "model": "gpt-4o-mini"}, principal=a_principal(models=frozenset(allowed)))


@pytest.mark.parametrize("allowed", [set(), {"other"}])
async def test_a_key_may_not_use_another_model(bench: Bench, allowed: set[str]) -> None:
    error = await refused(NotFoundError, bench, principal=a_principal(models=frozenset(allowed)))
    unknown = await refused(NotFoundError, bench, {**CHAT, "model": "nope"})
    assert (error.status, error.type, error.param, error.code) == (404, unknown.type, "model", "model_not_found")
    assert error.message == unknown.message.replace("nope", CHAT["model"])


@pytest.mark.parametrize(
    ("allowed", "may"), [({"r"}, True), ({"m", "n"}, True), ({"m"}, False), ({"n"}, False), (set(), False)]
)
async def test_a_key_needs_the_routes_name_or_everybodys_who_may_answer(
    bench: Bench, allowed: set[str], may: bool
) -> None:
    bench.configure(BACKED)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        principal = a_principal(models=frozenset(allowed))
        if may:
            await bench.ask(by("r"), principal=principal)
        else:
            with pytest.raises(NotFoundError):
                await bench.ask(by("r"), principal=principal)


CANARY = """
models:
  - {name: m@r1, engine: {source: ./one}}
  - {name: m@r2, engine: {source: ./two}}
routes: [{name: m, targets: [{model: m@r1, weight: 0}, {model: m@r2, weight: 1}]}]
"""


async def test_a_revision_is_used_under_the_public_name(bench: Bench) -> None:
    """Engines know the public name; clients see it; the record names the revision."""
    bench.directory.replace(Directory.of(parse(CANARY)))
    body = as_json({"model": "m", **json.loads(answer())})
    async with Upstream(answering(response(body))) as engine:
        bench.add(engine, model="m@r2", engine_names={"m@r2": "m"})
        reply = await bench.ask(CHAT, principal=a_principal(models=frozenset({"m"})))
        assert engine.requests[0].json["model"] == "m"
        assert json.loads(reply.body)["model"] == "m"
        record = await bench.record()
        assert (record.route, record.model) == ("m", "m@r2")


@pytest.mark.parametrize(("allowed", "may"), [({"m"}, True), ({"m@r2"}, True), ({"m@r1"}, False), ({"other"}, False)])
async def test_who_may_use_a_name_may_use_its_revisions(bench: Bench, allowed: set[str], may: bool) -> None:
    bench.directory.replace(Directory.of(parse(CANARY)))
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine, model="m@r2", engine_names={"m@r2": "m"})
        principal = a_principal(models=frozenset(allowed))
        if may:
            await bench.ask({**CHAT, "model": "m@r2"}, principal=principal)
        else:
            await refused(NotFoundError, bench, {**CHAT, "model": "m@r2"}, principal=principal)


async def test_a_target_that_fails_is_replaced_by_the_other_revision(bench: Bench) -> None:
    bench.directory.replace(Directory.of(parse(CANARY)))
    async with (
        Upstream(answering(response(b"{}", status=500))) as new,
        Upstream(answering(response(answer()))) as old,
    ):
        bench.add(new, id="new", model="m@r2", engine_names={"m@r2": "m"})
        bench.add(old, id="old", model="m@r1", engine_names={"m@r1": "m"})
        await bench.ask(CHAT)
        record = await bench.record()
        assert (record.model, [attempt.model for attempt in record.attempts]) == ("m@r1", ["m@r2", "m@r1"])
