"""quarterdeck.yaml changed under load: a valid file is applied, an invalid one changes nothing."""

import pytest
from tests.faults import ledger_check
from tests.faults.client import Shape, ask
from tests.faults.stack import Stack, mixed, until
from tests.faults.traffic import Traffic

pytestmark = pytest.mark.faults


async def test_a_good_file_takes_over_and_costs_nobody_anything(stack: Stack) -> None:
    key = await stack.key("reload-good")
    text = stack.gateway.config.read_text()
    more = text.replace(
        "models:\n", f"models:\n- name: new\n  endpoints:\n  - url: {stack.a.url}\n    model: mixed-one\n"
    )
    async with stack.client(key) as client, Traffic(client, mixed) as traffic:
        assert (await ask(client, Shape("chat"), "new")).outcome == "404 model_not_found"
        async with traffic.around("a good file was written"):
            await stack.configure(more)
        assert (await ask(client, Shape("chat"), "new")).outcome == "ok"
        async with traffic.around("the model was taken out again"):
            await stack.configure(text)
        assert (await ask(client, Shape("chat"), "new")).outcome == "404 model_not_found"
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    rows = [row for row in await stack.rows(key) if row.model != "new"]
    ledger_check.check(traffic.answers, rows)


async def test_a_bad_file_changes_nothing_and_is_named_with_its_line(stack: Stack) -> None:
    key = await stack.key("reload-bad")
    good = stack.gateway.config.read_text()
    async with stack.client(key) as client, Traffic(client, mixed) as traffic:
        async with traffic.around("a bad file was written"):
            await stack.configure(good + "nonsense: true\n", outcome="refused")
        report = stack.ready()
        line = len(good.splitlines()) + 1
        assert f"gateway.yaml:{line}: nonsense" in report["parts"]["config"]
        assert report["status"] == "degraded" and stack.gateway.get("/readyz")[0] == 200
        await stack.configure(good)
        await until(lambda: stack.ready()["parts"]["config"] == "ready")
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


async def test_a_time_out_that_is_changed_holds_from_then_on(stack: Stack) -> None:
    key = await stack.key("reload-time-outs")
    await stack.configure(stack.configuration(first_token_timeout_seconds=0.3))
    async with stack.client(key) as client:
        await stack.fault(stack.a, "slow=1s", count=1)
        answer = await ask(client, Shape("chat", stream=True), "mixed-one")
    # With the previous value (2 s) the first event would have arrived after a second.
    assert answer.outcome == "504 engine_timeout"
    await stack.all_settled()
    ledger_check.check([answer], await stack.rows(key))
