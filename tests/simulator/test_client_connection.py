from tests.simulator.harness import http, user

from quarterdeck.simulator import SimulatorConfig, create_app


async def test_a_body_above_the_limit_is_a_413() -> None:
    async with http(create_app(SimulatorConfig(max_request_body_size_mb=1))) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": user("x" * (1 << 20))})
    assert answer.status_code == 413
