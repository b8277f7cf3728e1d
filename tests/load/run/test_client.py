"""The measuring client, in the environment `load`."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from quarterdeck.load.analysis.samples import Sample
from quarterdeck.load.run.client import Client, now
from quarterdeck.load.run.prompts import PromptRequest

sample = Sample("stream", now(), now())
text = Client(sys.argv[1], "key", 10).send(PromptRequest("/chat/completions", b"{}", True), sample)
print(sample.outcome, sample.pieces, text, sample.first_token is not None and len(sample.gaps_ms))
"""


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
def test_thoughts_count_as_tokens_under_either_name(name: str, tmp_path: Path) -> None:
    deltas = [{"role": "assistant"}, {name: "Hm"}, {name: "m"}, {"content": "Yes"}, {}]
    body = b"".join(b"data: %b\n\n" % json.dumps({"choices": [{"delta": delta}]}).encode() for delta in deltas)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body + b"data: [DONE]\n\n")

        def log_message(self, *words: object) -> None:
            pass

    subprocess.run([sys.executable, "environments/make.py", "load"], cwd=ROOT, check=True, capture_output=True)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            command = [ROOT / ".envs/load/bin/python", "-c", SCRIPT, f"http://127.0.0.1:{server.server_port}/v1"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        finally:
            server.shutdown()
            thread.join()
    assert done.stdout.split() == ["ok", "3", "HmmYes", "2"]
