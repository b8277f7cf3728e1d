"""`quarterdeck ask` against a fake gateway, with recorded answers of the weather and stock services."""

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.ask_tools import MAX_BYTES, Tools

OSLO = {"results": [{"name": "Oslo", "country": "Norway", "latitude": 59.91, "longitude": 10.75}]}
NOW = {
    "current": {
        "time": "2026-11-30T10:00",
        "temperature_2m": -3.1,
        "relative_humidity_2m": 80,
        "weather_code": 71,
        "wind_speed_10m": 9.4,
    }
}
STOOQ = "Symbol,Date,Time,Close\r\nAAPL.US,2026-11-27,22:00:09,271.49\r\n"
QUOTE = {"Global Quote": {"01. symbol": "AAPL", "05. price": "271.49", "07. latest trading day": "2026-11-27"}}


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(name: str, number: int = 1, **arguments: str) -> dict[str, Any]:
    made = {"call_id": f"call_{number}", "name": name, "arguments": json.dumps(arguments)}
    return {"type": "function_call", "id": f"fc_{number}", "status": "completed", **made}


class World:
    """The gateway, whose model says `answers` in turn, and the services."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.outside: list[httpx.URL] = []
        self.services: dict[str, httpx.Response] = {
            "geocoding-api.open-meteo.com": httpx.Response(200, json=OSLO),
            "api.open-meteo.com": httpx.Response(200, json=NOW),
            "stooq.com": httpx.Response(200, text=STOOQ),
            "www.alphavantage.co": httpx.Response(200, json=QUOTE),
        }
        self.version: dict[str, Any] = {"response_format": None, "model": None}

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "gateway":
            self.outside.append(request.url)
            return self.services[request.url.host]
        path = request.url.path
        if path == "/readyz":
            return httpx.Response(200, json={"models": {"chat": {"state": "ready"}}})
        if path.startswith("/admin/requests/"):
            return httpx.Response(200, json={"cost": "0.001"})
        if path.startswith("/v1/prompts/"):
            return httpx.Response(200, json=self.version)
        self.requests.append(json.loads(request.content))
        usage = {"input_tokens": 10, "output_tokens": 5}
        body = {"status": "completed", "output": self.answers.pop(0), "usage": usage}
        return httpx.Response(200, json=body, headers={"x-request-id": f"req_{len(self.requests)}"})

    def ask(self, *words: str, **variables: str) -> Result:
        arguments = ["--url", "http://gateway", "--key", "sk-x", "ask", *words]
        return CliRunner().invoke(cli, arguments, obj=httpx.MockTransport(self.handle), env=variables)

    def tools(self, **variables: str) -> Tools:
        return Tools(httpx.Client(transport=httpx.MockTransport(self.handle)), variables)


def test_tools_are_called_until_the_model_answers() -> None:
    world = World([call("weather", 1, place="Oslo"), call("weather", 2, place="Rome")], [message("In Rome.")])
    done = world.ask("Is it warmer", "in Oslo or in Rome?")
    assert (done.exit_code, done.stdout) == (0, "In Rome.\n"), done.output
    first, second = world.requests
    assert first["input"] == [{"role": "user", "content": "Is it warmer in Oslo or in Rome?"}]
    assert [tool["name"] for tool in first["tools"]] == ["weather", "stock"]
    assert (first["model"], first["store"]) == ("chat", False)
    kinds = [item.get("type") for item in second["input"]]
    assert kinds == [None, "function_call", "function_call", "function_call_output", "function_call_output"]
    assert json.loads(second["input"][3]["output"])["temperature_c"] == -3.1
    assert 'weather({"place": "Oslo"}) → {"place": "Oslo", "country": "Norway"' in done.stderr
    assert "step 1: 10 + 5 tokens, $0.001" in done.stderr
    assert "2 steps, 20 + 10 tokens, $0.002" in done.stderr


def test_the_answer_and_its_steps_as_json() -> None:
    found = json.loads(World([call("stock", symbol="AAPL")], [message("$271")]).ask("AAPL?", "--json").stdout)
    assert (found["answer"], found["input_tokens"], found["cost"]) == ("$271", 20, "0.002")
    assert found["steps"][0]["calls"][0]["result"] == {
        "symbol": "AAPL.US",
        "price": 271.49,
        "time": "2026-11-27 22:00:09",
    }


def test_a_stored_prompt_gives_the_system_message_and_the_form_of_the_answer() -> None:
    world = World([call("weather", place="Oslo")], [message("-3 degrees")], [message('{"warmer": "Rome"}')])
    world.version["response_format"] = {"type": "json_schema"}
    found = json.loads(world.ask("Where?", "--prompt", "agent@production", "--json").stdout)
    assert found["answer"] == {"warmer": "Rome"}
    assert [body["prompt"] for body in world.requests] == [{"id": "agent", "label": "production"}] * 3
    assert ["instructions" in body for body in world.requests] == [False] * 3
    # An engine that is bound to a form calls no tools: it is bound in the last step only.
    assert [(body.get("text"), body.get("tool_choice")) for body in world.requests] == [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "text"}}, None),
        (None, "none"),
    ]


def test_a_small_model_is_made_to_call_a_tool() -> None:
    world = World([call("weather", place="Oslo")], [message("Cold.")])
    assert world.ask("Oslo?", "--tool-choice", "weather").exit_code == 0
    assert world.requests[0]["tool_choice"] == {"type": "function", "name": "weather"}
    assert "tool_choice" not in world.requests[1]


def test_the_last_step_has_to_answer() -> None:
    world = World([call("weather", place="Oslo")], [message("Enough.")])
    assert world.ask("Oslo?", "--max-steps", "2").stdout == "Enough.\n"
    assert world.requests[1]["tool_choice"] == "none"


@pytest.mark.parametrize("words", [[], ["--prompt", "@x", "hi"], ["--prompt", "a#b", "hi"], ["--max-steps", "0", "hi"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str]) -> None:
    assert World().ask(*words).exit_code == 2


def test_an_answer_cannot_write_to_the_terminal() -> None:
    done = World([call("weather", place="\x1b[2J")], [message("\x1b]0;title\x07")]).ask("Hi")
    assert "\x1b" not in done.stdout + done.stderr


def test_arguments_that_are_wrong_are_answered_with_the_reason() -> None:
    tools = World().tools()
    assert "no tool 'boil'" in tools.call("boil", "{}")["error"]
    assert tools.call("weather", "{") == {"error": "The arguments are not valid JSON."}
    for wrong in ("{}", "[]", '{"place": 1}', '{"place": " "}', "null"):
        assert tools.call("weather", wrong) == {"error": "Missing argument: 'place', a string."}


def test_services_that_fail_are_answered_with_the_reason() -> None:
    world = World()
    world.services["geocoding-api.open-meteo.com"] = httpx.Response(200, json={})
    assert world.tools().call("weather", '{"place": "Nowhere"}') == {"error": "No place is called 'Nowhere'."}
    world.services["stooq.com"] = httpx.Response(200, text="Symbol,Date,Time,Close\r\nX.US,N/D,N/D,N/D\r\n")
    assert world.tools().call("stock", '{"symbol": "X"}') == {"error": "No price is known of 'X'."}
    world.services["stooq.com"] = httpx.Response(503)
    assert world.tools().call("stock", '{"symbol": "X"}') == {"error": "stooq.com answered with status 503."}
    world.services["stooq.com"] = httpx.Response(200, content=b"x" * (MAX_BYTES + 1))
    assert "more than" in world.tools().call("stock", '{"symbol": "X"}')["error"]


def test_a_key_chooses_the_other_stock_service_and_is_in_no_error() -> None:
    world = World()
    tools = world.tools(QUARTERDECK_STOCK_KEY="secret")
    assert tools.call("stock", '{"symbol": "aapl"}')["price"] == 271.49
    assert world.outside[-1].params["apikey"] == "secret"
    world.services["www.alphavantage.co"] = httpx.Response(500)
    assert "secret" not in tools.call("stock", '{"symbol": "aapl"}')["error"]
