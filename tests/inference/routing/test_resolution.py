"""What a model's name stands for, and which keys may use it."""

from decimal import Decimal

import pytest
from tests.inference.bench import BACKED, Bench, refused
from tests.inference.making import CHAT, a_principal, answer, by, change
from tests.net.upstream import Upstream, answering, response

from quarterdeck.errors import NotFoundError


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
