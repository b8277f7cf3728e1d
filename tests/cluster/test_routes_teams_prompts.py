"""Objects besides Models, through a whole release: what `kubectl` shows, and what OpenAI's SDK gets."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.cluster.kubectl import WAIT_S, Kubectl, Object
from tests.cluster.release import API_VERSION, Release, secret

SAY = [{"role": "user", "content": "Hello"}]


def resource(kind: str, name: str, /, **spec: Any) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def key(release: Release) -> str:
    return release.create_key("user")[1]


@pytest.fixture(scope="module")
def client(release: Release, key: str) -> Iterator[openai.OpenAI]:
    small = {"resources": {"cpu": "20m"}}
    release.apply_model("hello", aliases=["hi"], **small)
    release.apply_model("other", **small)
    for name in ("hello", "other"):
        release.wait_ready(name)
    with release.client(key) as client:
        yield client


def ask(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=SAY, max_tokens=4)  # type: ignore[arg-type]
    assert answer.choices[0].message.content
    return answer.model


def test_a_route_answers_and_says_what_it_cant_find(
    release: Release, namespace: Kubectl, client: openai.OpenAI
) -> None:
    namespace.apply(resource("ModelRoute", "chat", targets=[{"model": "hello"}, {"model": "gone", "weight": 9}]))
    found = namespace.wait(
        "modelroute", "chat", lambda one: reason_of(one, "ResolvedRefs") == "ModelNotFound", "unresolved"
    )
    assert found is not None
    assert "no model or adapter 'gone'" in found["status"]["message"]
    release.wait_listed("chat")
    ask(client, "chat")  # the target that exists answers
    namespace.apply(resource("ModelRoute", "chat", targets=[{"model": "hello"}, {"model": "other", "weight": 9}]))
    namespace.wait_condition("modelroute", "chat", "Ready")
    assert {ask(client, "chat") for _ in range(20)} <= {"hello", "other", "chat"}


def test_a_younger_object_does_not_get_a_name_until_it_is_free(namespace: Kubectl, client: openai.OpenAI) -> None:
    namespace.apply(resource("ModelRoute", "claims-hi", servedName="hi", targets=[{"model": "other"}]))
    found = namespace.wait_condition("modelroute", "claims-hi", "Accepted", "False")
    assert "the name 'hi' belongs to Model hello" in found["status"]["message"]
    ask(client, "hi")
    namespace.patch("model", "hello", {"spec": {"aliases": []}})
    namespace.wait_condition("modelroute", "claims-hi", "Ready")
    ask(client, "hi")
    namespace.delete("modelroute", "claims-hi")


def test_a_team_bounds_its_keys_and_belongs_to_the_cluster(release: Release, namespace: Kubectl) -> None:
    namespace.apply(resource("Team", "small", limits={"maxTokens": 7, "requestsPerMinute": 2}))
    namespace.wait_condition("team", "small", "Ready")
    _, key = release.create_key("of-a-team", team="small")
    deadline = time.monotonic() + WAIT_S  # the gateway follows the Team a moment after its status
    with release.client(key) as client, pytest.raises(openai.RateLimitError):
        while time.monotonic() < deadline:
            ask(client, "hello")
    headers = {"authorization": f"Bearer {release.admin_key}"}
    refused = httpx.post(f"{release.url}/admin/teams/small", json={"priority": 3}, headers=headers)
    assert refused.status_code in (405, 409)
    if refused.status_code == 409:
        assert refused.json()["error"]["code"] == "managed_by_config"


SERVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        is_known = self.headers["authorization"] == "Bearer sk-of-the-server"
        message = {"role": "assistant", "content": "known"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        good = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        bad = {"error": {"message": "wrong key", "type": "invalid_request_error", "code": None, "param": None}}
        body = json.dumps(good if is_known else bad).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
"""A hosted API that answers only with its key."""


@pytest.mark.long  # until the kubelet shows a new Secret in a volume: a minute
def test_an_external_endpoint_gets_the_key_of_its_secret(
    namespace: Kubectl, client: openai.OpenAI, images: dict[str, str]
) -> None:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {"name": "server", "image": images["simulator"], "command": ["python", "-c", SERVER]}
    pod_security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"containers": [{**container, "securityContext": security}], "securityContext": pod_security}
    labels = {"app": "hosted"}
    namespace.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hosted", "labels": labels}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hosted"},
            "spec": {"selector": labels, "ports": [{"port": 8000}]},
        },
        secret("hosted", token="sk-of-the-server"),
    )
    namespace.wait_condition("pod", "hosted", "Ready")
    url = f"http://hosted.{namespace.namespace}.svc:8000"
    endpoint = {"url": url, "kind": "openai", "secretRef": {"name": "hosted", "key": "token"}}
    namespace.apply(resource("Model", "elsewhere", endpoints=[endpoint]))
    namespace.wait_condition("model", "elsewhere", "Ready")
    deadline = time.monotonic() + 300  # the kubelet shows a changed Secret in a volume after up to 90 s
    while True:
        try:
            answer = client.chat.completions.create(model="elsewhere", messages=SAY)  # type: ignore[arg-type]
            break
        except openai.APIError as error:
            assert "sk-of-the-server" not in str(error)
            assert time.monotonic() < deadline, error
            time.sleep(2)
    assert answer.choices[0].message.content == "known"


def test_a_prompt_is_mirrored_used_changed_and_archived(
    release: Release, namespace: Kubectl, client: openai.OpenAI
) -> None:
    def prompt(text: str) -> Object:
        messages = [{"role": "system", "content": text}, {"role": "user", "content": "{{ question }}"}]
        return resource("Prompt", "greet", name="team/greet", labels=["production"], messages=messages, model="hello")

    namespace.apply(prompt("Be kind."))
    namespace.wait_condition("prompt", "greet", "Ready")
    answer = client.chat.completions.create(
        model="prompt:team/greet@production", messages=[], extra_body={"prompt": {"variables": {"question": "Hi?"}}}
    )
    assert answer.choices[0].message.content
    namespace.apply(prompt("Be very kind."))
    found = namespace.wait("prompt", "greet", lambda one: ((one or {}).get("status") or {}).get("version") == 2)
    assert found is not None
    (shown,) = release.admin("GET", "/v1/prompts?name=team/greet")["data"]
    assert shown["labels"] == {"production": {"version": 2}}
    assert namespace.table("prompts")[1][:5] == ["greet", "True", "Ready", "2", '["production"]']

    namespace.apply(resource("Prompt", "broken", text="Hello {{ name"))
    refused = namespace.wait_condition("prompt", "broken", "Accepted", "False")
    assert reason_of(refused, "Ready") == "InvalidSpec"

    namespace.delete("prompt", "greet")
    namespace.wait("configmap", "qd-config-prompts", lambda one: one and "greet" not in one["data"]["prompts.json"])
    assert release.admin("GET", f"/v1/prompts/{shown['id']}")["archived"] is not None


def reason_of(one: Object | None, kind: str) -> str | None:
    conditions = ((one or {}).get("status") or {}).get("conditions") or []
    return next((each["reason"] for each in conditions if each["type"] == kind), None)
