"""What `helm test` does, with the standard library only: `probe.py denied | from-zero | chat | stream`.

Exit status 0 when the gateway behaves; otherwise 1, with one sentence that says what is wrong.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

BASE = os.environ["QUARTERDECK_BASE_URL"]
MODEL = os.environ["QUARTERDECK_TEST_MODEL"]
KEY = os.environ.get("QUARTERDECK_TEST_KEY", "").strip()
DEADLINE = time.monotonic() + float(os.environ.get("QUARTERDECK_TEST_SECONDS", "120"))


def call(path, body=None, key=KEY):
    """Send a request; return its status, and the response as text."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(BASE + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=max(1.0, DEADLINE - time.monotonic())) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answered(path, body=None, key=KEY):
    """Call until there is another answer than 404, 429 and 503: a Model is known some seconds after it was created."""
    while True:
        try:
            status, text = call(path, body, key)
        except OSError as error:
            status, text = 0, f"no connection: {error}"
        if status not in (0, 404, 429, 503) or time.monotonic() > DEADLINE:
            return status, text
        print(f"{status}: {text[:300]}; trying again", file=sys.stderr)
        time.sleep(1)


def chat(**more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, **more}


def expect(is_true, what):
    if not is_true:
        print(f"failed: {what}", file=sys.stderr)
        sys.exit(1)


def denied():
    for key in ("", "sk-qd-not-a-key"):
        status, text = answered("/chat/completions", chat(), key)
        expect(
            status == 401, f"a request with {'a wrong' if key else 'no'} key must get 401, not {status}: {text[:300]}"
        )


def state():
    """What the gateway says about the model: `idle` where it has no replica and starts one for a request."""
    try:
        with urllib.request.urlopen(BASE.removesuffix("/v1") + "/readyz", timeout=10) as response:
            return json.loads(response.read())["models"].get(MODEL, {}).get("state", "unknown")
    except OSError as error:
        return str(error)


def from_zero():
    while (found := state()) != "idle":  # it began with one replica, which shows that it can start
        expect(time.monotonic() < DEADLINE, f"the model {MODEL} was not scaled to zero: it is {found}")
        time.sleep(0.5)
    begun = time.monotonic()
    status, text = answered("/chat/completions", chat())
    expect(status == 200, f"the model {MODEL} did not start from zero: {status} {text[:500]}")
    print(f"at zero; answered after {time.monotonic() - begun:.1f} s", file=sys.stderr)


def plain():
    status, text = answered("/chat/completions", chat())
    expect(status == 200, f"a chat must get 200, not {status}: {text[:500]}")
    answer = json.loads(text)
    expect(answer["choices"][0]["message"]["content"], f"the answer is empty: {text[:500]}")
    expect(answer["usage"]["completion_tokens"] > 0, f"no tokens were counted: {text[:500]}")


def stream():
    status, text = answered("/chat/completions", chat(stream=True))
    expect(status == 200, f"a stream must get 200, not {status}: {text[:500]}")
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    expect(len(events) > 2 and events[-1] == "[DONE]", f"a stream must have pieces and end with [DONE]: {text[-500:]}")


TESTS = {"denied": denied, "from-zero": from_zero, "chat": plain, "stream": stream}
TESTS[sys.argv[1]]()
print(f"{sys.argv[1]}: passed", file=sys.stderr)
