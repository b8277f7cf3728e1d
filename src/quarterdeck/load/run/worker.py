"""A worker process of a run: sends requests and reports its samples to the master.

It builds the profile from its own arguments, as the master does, and gets the rest from the master's start message.
"""

import signal
from typing import Any

from quarterdeck.load.run import locust_process  # first: it patches the standard library

import gevent  # isort: skip

from quarterdeck.load.run.client import now
from quarterdeck.load.run.generator import Assignment, LoadGenerator
from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.target import Target


def work(profile: Profile, key: str, host: str, port: int) -> int:
    """Work until the master ends the run or disconnects. Returns the exit status."""
    env = locust_process.environment(profile, "", None, is_headless=True)
    try:
        runner = env.create_worker_runner(host, port)
    except ConnectionError:
        print(f"error: cannot connect to the master at {host}:{port}", flush=True)
        return 2

    def start(environment: Any, msg: Any, **_: Any) -> None:
        data = msg.data
        target = Target(data["url"], key, data["model"], data["embedding_model"], data["kind"])
        if env.generator is not None:
            env.generator.close()
        env.generator = LoadGenerator(env, profile, Assignment(data["start"], target, data["share"], data["shares"]))
        locust_process.reset_after_warmup(env, data["start"] + profile.warmup, now())
        gevent.spawn(report_end, env.generator)

    def report_end(generator: LoadGenerator) -> None:
        generator.is_over.wait()
        runner.send_message("finished", generator.buffer.take())

    def stop_arrivals(environment: Any, msg: Any, **_: Any) -> None:
        if env.generator is not None:
            env.generator.stop_arrivals = True

    def report(client_id: str, data: dict[str, Any]) -> None:
        if env.generator is not None:
            data["quarterdeck"] = env.generator.buffer.take()

    runner.register_message("start", start)
    runner.register_message("stop_arrivals", stop_arrivals)
    env.events.report_to_master.add_listener(report)
    gevent.signal_handler(signal.SIGINT, lambda: None)  # the master handles the terminal's Ctrl-C
    gevent.signal_handler(signal.SIGTERM, runner.quit)
    runner.greenlet.join()
    return 0
