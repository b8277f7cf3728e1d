"""A fake process for tests: answers health and readiness, exits on SIGTERM, and misbehaves on request.

fake_process.py NAME PORT JOURNAL [--dies] [--late-ready] [--orphan] [--deaf] [--ends-badly]
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

name, port, journal, *options = sys.argv[1:]
polls = {"count": 0}


def note(text: str) -> None:
    with Path(journal).open("a", encoding="utf-8") as out:
        out.write(f"{name} {text} {os.getpid()}\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        polls["count"] += 1
        state = "starting" if "--late-ready" in options and polls["count"] < 4 else "ready"
        endpoint = {"id": "m#1", "model": "m", "url": "http://127.0.0.1:1", "state": state, "detail": "loading weights"}
        found = {"endpoints": [endpoint], "models": {"m": {"state": state}}}
        if Path(f"{journal}.{name}.parts").exists():
            found["parts"] = json.loads(Path(f"{journal}.{name}.parts").read_text(encoding="utf-8"))
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def end(*_: object) -> None:
    if "--deaf" not in options:
        note("ends")
        os._exit(1 if "--ends-badly" in options else 0)


signal.signal(signal.SIGTERM, end)
if "--fails-once" in options and not Path(f"{journal}.{name}").exists():
    Path(f"{journal}.{name}").touch()
    threading.Timer(2, lambda: os._exit(1)).start()
    options.append("--late-ready")
    polls["count"] = -1000
if "--dies" in options:
    print("the port is cursed", file=sys.stderr)
    sys.exit(3)
if "--orphan" in options:  # as Ray does: an orphaned grandchild in its own session
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    quiet = "stdout=-3, stderr=-3, start_new_session=True"
    forget = f"import subprocess; print(subprocess.Popen({sleeper!r}, {quiet}).pid)"
    pid = subprocess.run([sys.executable, "-c", forget], capture_output=True, text=True, check=True).stdout.strip()
    note(f"forgets {pid}")
note("starts")
if port == "0":
    print("one step\nanother step", flush=True)
    time.sleep(0.1)
    sys.exit(0)
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
