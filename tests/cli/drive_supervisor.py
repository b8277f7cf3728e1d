"""Runs a Supervisor over fake processes: drive_supervisor.py FOLDER, with their options in FOLDER/processes.json.

A process of its own, because a supervisor is a subreaper and ends everything below itself.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from quarterdeck import processes
from quarterdeck.cli.process_plan import ProcessPlan, ProcessSpec
from quarterdeck.cli.supervisor import Platform, Preparation, Supervisor
from quarterdeck.cli.terminal import Terminal

folder = Path(sys.argv[1])
options = json.loads((folder / "processes.json").read_text(encoding="utf-8"))


def spec(name: str) -> ProcessSpec:
    port, *words = options[name]
    program = Path(__file__).with_name("fake_process.py")
    argv = (sys.executable, str(program), name, str(port), str(folder / "journal"), *words)
    health = f"http://127.0.0.1:{port}/healthz" if port else None
    return ProcessSpec(name, argv, dict(os.environ), health, start_s=20, grace_s=3)


async def main() -> int:
    platform = Platform(
        plan=ProcessPlan(redis=None, engine=spec("engine"), worker=spec("worker"), gateway=spec("gateway")),
        preparation=Preparation(database=spec("database"), models=spec("models")),
        redis_socket=None,
        logs=folder,
        models=("m",),
        chat_models=("m",),
        usable=lambda model: f"usable: {model}",
    )
    supervisor = Supervisor(platform, Terminal())
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, supervisor.interrupt)
    return await supervisor.run()


processes.become_subreaper()
sys.exit(asyncio.run(main()))
