"""`quarterdeck ask` against a platform with a simulated engine; the weather service is a recorded answer."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from tests.tools.conftest import KEY, Platform

from quarterdeck.cli.__main__ import cli

ANSWERS = {
    "/search": {"results": [{"name": "Oslo", "country": "Norway", "latitude": 59.9, "longitude": 10.7}]},
    "/forecast": {"current": {"time": "2026-11-30T10:00", "temperature_2m": -3.1, "weather_code": 71}},
}


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(ANSWERS[self.path.partition("?")[0]]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *values: object) -> None: ...


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_tool_is_called_natively_and_its_result_is_answered(platform: Platform, service: str) -> None:
    variables = {
        "QUARTERDECK_GEOCODING_URL": f"{service}/search",
        "QUARTERDECK_FORECAST_URL": f"{service}/forecast",
        "NO_PROXY": "127.0.0.1",
    }
    words = ["--url", platform.gateway.url, "--key", KEY, "ask", "What is the weather in Oslo?", "--json"]
    done = CliRunner().invoke(cli, [*words, "--max-tokens", "400"], env=variables)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (called,) = found["steps"][0]["calls"]
    assert (called["name"], called["result"]["temperature_c"]) == ("weather", -3.1)
    assert found["answer"]
    assert found["input_tokens"] == sum(step["usage"]["input_tokens"] for step in found["steps"])


def test_an_error_is_one_line(platform: Platform) -> None:
    words = ["--url", platform.gateway.url, "--key", KEY, "ask", "-m", "nothing", "Hi"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "does not exist" in done.stderr
