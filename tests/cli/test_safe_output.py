"""What a gateway or a model sends can't command the user's terminal."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.on_terminal import raw_on_terminal

from quarterdeck.cli.safe_output import safe

HOSTILE = "a\x1b]0;pwned\x07\x1b]52;c;aGk=\x07\x1b[2J\x1b[1;1H\x9b31m\x08b"


class _Hostile(http.server.BaseHTTPRequestHandler):
    """Answers every path with objects whose text is an attack."""

    def do_GET(self) -> None:
        text = HOSTILE
        key = dict.fromkeys(("id", "name", "team", "hint"), text) | {"created": 1, "expires": None}
        row = {**key, "revoked": False, "admin": False, "limits": {}, "budget": None, "models": [text]}
        found = {
            "object": "list",
            "has_more": False,
            "data": [row],
            "status": "ready",
            "models": {text: {"state": text, "detail": text, "task": text}},
            "error": {"message": text} if "models/" in self.path else None,
        }
        body = json.dumps(found).encode()
        self.send_response(503 if "readyz" in self.path else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hostile_url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "words",
    [
        *("status", "models", "keys list", "chat hi", "keys create x"),
        *(
            pytest.param(words, marks=pytest.mark.long)
            for words in (
                "teams list",
                "orgs list",
                "models show x",
                "keys revoke key_x",
                "requests list",
                "prompts list",
            )
        ),
    ],
)
def test_no_sequence_of_a_hostile_gateway_reaches_the_terminal(hostile_url: str, words: str, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "QUARTERDECK_URL": hostile_url,
        "QUARTERDECK_KEY": "sk-x",
        "QUARTERDECK_STATE": str(tmp_path / "none"),
        "QUARTERDECK_CONTEXTS": str(tmp_path / "contexts.toml"),
    }
    shown = raw_on_terminal(words, environ, 100)
    assert "Traceback" not in shown
    assert all(char not in shown for char in "\x07\x08\x9b")
    for sequence in ("\x1b]", "\x1b[2J", "\x1b[1;1H"):
        assert sequence not in shown


def test_colours_and_erased_lines_stay() -> None:
    ours = "\x1b[1;32mready\x1b[0m\t\n\r\x1b[K"
    assert safe(ours) == ours
    assert safe("\x1b]0;x\x07\x1b[2J\x9b") == "\\x1b]0;x\\x07\\x1b[2J\\x9b"
    assert safe("größe 日本 👩\u200d💻") == "größe 日本 👩\u200d💻"
