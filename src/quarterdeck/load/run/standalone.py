"""The stage for a locust that somebody else started: the users of a locustfile find their client and prompts here."""

from pathlib import Path
from typing import Any

import gevent
from locust import events

from quarterdeck.load.run import profile as profiles
from quarterdeck.load.run import target
from quarterdeck.load.run.streaming import now
from quarterdeck.load.run.users import Begin, Stage
from quarterdeck.settings.environment import Environment


def install(profile_file: Path) -> None:
    """When a test starts, its target is looked for and its stage set. What can't be tested ends it with a line."""

    @events.test_start.add_listener
    def set_stage(environment: Any, **_: Any) -> None:
        profile = profiles.load(profile_file).model_copy(update={"warmup": 0.0})
        settings = Environment.read()
        local = target.local(settings.state)
        url = environment.host or (local[0] if local else "")
        key = local[1] if local and url == local[0] else settings.variables.get("OPENAI_API_KEY", "none")
        try:
            if not url:
                raise target.TargetError("no --host, and no platform of this user here: `make run` starts one")
            found = target.find(url, key, None, None, wants_embeddings=True)
        except target.TargetError as error:
            print(f"error: {error}", flush=True)
            environment.process_exit_code = 2
            environment.runner.quit()
            return
        share = max(0, getattr(environment.runner, "worker_index", 0))
        environment.stage = Stage(environment, profile, Begin(now(), found, share, 1000))

    # Locust sets its timers (--run-time) by the event loop's clock, which stood still while all of this was imported.
    gevent.get_hub().loop.update_now()
