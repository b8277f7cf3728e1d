import re

from tests.simulator.harness import http

from quarterdeck.simulator import SimulatorConfig, create_app


async def test_the_page_is_well_formed() -> None:
    async with http(create_app(SimulatorConfig(model='a"b\\c'))) as client:
        text = (await client.get("/metrics")).text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    for line in text.splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'[a-z0-9_:]+\{([a-z_]+="(\\.|[^"\\])*",?)*\} \S+', line), line
            name = line.partition("{")[0]
            assert name in kinds or re.sub(r"_(bucket|sum|count)$", "", name) in kinds
    assert kinds["vllm:generation_tokens_total"] == "counter"
