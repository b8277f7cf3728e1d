"""A worker: a process of a run that asks, and sends what it measured to the master.

It knows the profile from its own arguments, as the master does, and the rest from the master's word to begin.
"""

import signal
from typing import Any

from quarterdeck.load.run import locust_process  # first: it patches the standard library

import gevent  # isort: skip

from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.streaming import now
from quarterdeck.load.run.target import Target
from quarterdeck.load.run.users import Begin, Stage


def work(profile: Profile, key: str, host: str, port: int) -> int:
    """Until the master ends the run, or is gone. Returns the exit status."""
    env = locust_process.environment(profile, "", None, is_headless=True)
    try:
        runner = env.create_worker_runner(host, port)
    except ConnectionError:
        print(f"no master at {host}:{port}", flush=True)
        return 2

    def begin(environment: Any, msg: Any, **_: Any) -> None:
        told = msg.data
        target = Target(told["url"], key, told["model"], told["embedding_model"], told["kind"])
        if env.stage is not None:
            env.stage.close()
        env.stage = Stage(env, profile, Begin(told["start"], target, told["share"], told["shares"]))
        locust_process.reset_after_warmup(env, told["start"] + profile.warmup, now())
        gevent.spawn(say_when_over, env.stage)

    def say_when_over(stage: Stage) -> None:
        stage.is_over.wait()
        runner.send_message("over", stage.tape.take())

    def enough(environment: Any, msg: Any, **_: Any) -> None:
        if env.stage is not None:
            env.stage.enough = True

    def report(client_id: str, data: dict[str, Any]) -> None:
        if env.stage is not None:
            data["quarterdeck"] = env.stage.tape.take()

    runner.register_message("begin", begin)
    runner.register_message("enough", enough)
    env.events.report_to_master.add_listener(report)
    gevent.signal_handler(signal.SIGINT, lambda: None)  # the terminal's Ctrl-C is the master's to hear
    gevent.signal_handler(signal.SIGTERM, runner.quit)
    runner.greenlet.join()
    return 0
