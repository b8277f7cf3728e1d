"""Each process survives restarts of the others. Clients see what docs/operations/failures.md says."""

import os
import signal
import subprocess
from pathlib import Path

import openai
from tests.e2e.stack import CHAT, Stack

from quarterdeck.processes import descendants


def named(stack: Stack, *words: str) -> list[int]:
    """Return the stack's processes whose command line contains all the words."""
    assert stack.process is not None
    found = []
    for pid in (process.pid for process in descendants(stack.process.pid)):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile
            continue
        if all(word in command for word in words):
            found.append(pid)
    return found


def answers(stack: Stack) -> bool | None:
    try:
        stack.client().chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Hello."}], max_tokens=2
        )
    except openai.APIError:
        return None
    return True


def test_a_killed_gateway_is_back(platform: Stack) -> None:
    (old,) = named(platform, "quarterdeck.gateway")
    os.kill(old, signal.SIGKILL)
    platform.wait(lambda: answers(platform), 120)
    assert named(platform, "quarterdeck.gateway") != [old]


def test_a_killed_redis_is_back_and_no_request_was_refused(platform: Stack) -> None:
    (old,) = named(platform, "redis-server")
    os.kill(old, signal.SIGKILL)
    answer = platform.client().chat.completions.with_raw_response.create(
        model=CHAT, messages=[{"role": "user", "content": "Hello."}], max_tokens=2
    )
    assert answer.status_code == 200
    assert platform.row(answer.headers["x-request-id"])["status"] == "ok"


def test_a_killed_engine_is_an_error_event_and_comes_back(platform: Stack) -> None:
    stream = platform.client().chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Write a very long story."}],
        max_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    error: openai.APIError | None = None
    killed = False
    try:
        for chunk in stream:
            if not killed and chunk.choices and chunk.choices[0].delta.content:
                killed = True
                for pid in named(platform, "ray::ServeReplica", CHAT.split("-")[0]):
                    os.kill(pid, signal.SIGKILL)
    except openai.APIError as failure:
        error = failure
    assert killed
    assert error is not None
    row = platform.row(stream.response.headers["x-request-id"])
    assert row["status"] == "error"
    assert row["output_tokens"] > 0
    platform.wait(lambda: answers(platform), 600)


def test_ctrl_c_leaves_no_process(platform: Stack) -> None:
    assert platform.process is not None
    pids = [process.pid for process in descendants(platform.process.pid)]
    assert len(pids) > 8
    platform.stop()
    states = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True)
    alive = [line for line in states.stdout.splitlines() if " Z" not in line]
    assert alive == []
