from pydantic import BaseModel
from tests.simulator.harness import sdk, user


class Weather(BaseModel):
    city: str
    days: int


async def test_json_is_valid() -> None:
    async with sdk() as client:
        parsed = await client.chat.completions.parse(model="simulated", messages=user("hello"), response_format=Weather)
        assert isinstance(parsed.choices[0].message.parsed, Weather)
        loose = await client.chat.completions.create(
            model="simulated", messages=user("hello"), response_format={"type": "json_object"}
        )
        assert (loose.choices[0].message.content or "").startswith('{"answer":')
        chosen = await client.chat.completions.create(
            model="simulated",
            messages=user("hello"),
            extra_body={"structured_outputs": {"choice": ["port", "starboard"]}},
        )
    assert chosen.choices[0].message.content in ("port", "starboard")
