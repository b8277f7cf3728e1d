"""A locustfile to run locust directly: `.envs/load/bin/locust -f loadtests/locustfile.py --users 20 --run-time 1m`.

Runs a closed loop of locust's users. Its tables hold the same measurements as `python -m quarterdeck.load run`, which
adds open-loop schedules, recordings and reports. Target: `--host` (a base URL with /v1; default: the platform on this
machine), with OPENAI_API_KEY for another server. Add your own users here.
"""

from pathlib import Path

from quarterdeck.load.run import standalone
from quarterdeck.load.run.users import Chat, Disconnecter, Embeddings, Rag, Repeater, Session, Stream, ToolCaller

standalone.install(Path(__file__).parent / "profiles" / "default.yaml")

__all__ = ["Chat", "Disconnecter", "Embeddings", "Rag", "Repeater", "Session", "Stream", "ToolCaller"]
