"""For those who start locust themselves: `.envs/load/bin/locust -f loadtests/locustfile.py --users 20 --run-time 1m`.

A closed loop of locust's own users; what they measure stands in its tables as it does with `python -m quarterdeck.load
run`, which also keeps open-loop schedules, records and reports. Who is asked: `--host` (a base URL with /v1; default:
the platform on this machine), with OPENAI_API_KEY where it is another one. Add users of your own here.
"""

from pathlib import Path

from quarterdeck.load.run import standalone
from quarterdeck.load.run.users import Chat, Disconnecter, Embeddings, Rag, Repeater, Session, Stream, ToolCaller

standalone.install(Path(__file__).parent / "profiles" / "default.yaml")

__all__ = ["Chat", "Disconnecter", "Embeddings", "Rag", "Repeater", "Session", "Stream", "ToolCaller"]
