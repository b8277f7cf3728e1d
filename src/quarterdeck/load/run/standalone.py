"""Sets up the load generator for users of a locustfile, in a locust process that was started directly."""

from pathlib import Path
from typing import Any

import gevent
from locust import events

from quarterdeck.load.run import profile as profiles
from quarterdeck.load.run import target
from quarterdeck.load.run.client import now
from quarterdeck.load.run.generator import Assignment, LoadGenerator
from quarterdeck.settings.environment import Environment


def install(profile_file: Path) -> None:
    """On each test start, find the target and create the generator; quit with an error line if there is no target."""

    @events.test_start.add_listener
    def create_generator(environment: Any, **_: Any) -> None:
        profile = profiles.load(profile_file).model_copy(update={"warmup": 0.0})
        settings = Environment.read()
        local = target.local(settings.state)
        url = environment.host or (local[0] if local else "")
        key = local[1] if local and url == local[0] else settings.variables.get("OPENAI_API_KEY", "none")
        try:
            if not url:
                raise target.TargetError("no --host, and no platform found on this machine: start one with `make run`")
            found = target.find(url, key, None, None, wants_embeddings=True)
        except target.TargetError as error:
            print(f"error: {error}", flush=True)
            environment.process_exit_code = 2
            environment.runner.quit()
            return
        share = max(0, getattr(environment.runner, "worker_index", 0))
        environment.generator = LoadGenerator(environment, profile, Assignment(now(), found, share, 1000))

    # Locust sets its timers (--run-time) by the event loop's clock, which did not advance during the imports.
    gevent.get_hub().loop.update_now()
