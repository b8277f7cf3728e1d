"""Secrets of an installation: made once, kept for ever."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import pytest

from quarterdeck.kube.create_secrets import SecretsError, Wanted, ensure, main, random_value

ADMIN = Wanted("prod-admin", "key", "sk-qd-")
LABELS = {"app.kubernetes.io/part-of": "quarterdeck"}


class FakeSecrets:
    """The API server's answers, with its optimistic locking."""

    def __init__(self, secrets: dict[str, dict[str, Any]] | None = None) -> None:
        self.secrets = secrets or {}
        self.calls: list[str] = []
        self.before_write: list[tuple[str, dict[str, Any]]] = []
        """Secrets that another client writes just before our next write."""
        self.refusal: tuple[int, dict[str, Any]] | None = None

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        self.calls.append(method)
        if self.refusal:
            return self.refusal
        if method == "GET":
            found = self.secrets.get(path.removeprefix("/"))
            return (200, found) if found else (404, {"message": "not found"})
        if self.before_write:
            name, secret = self.before_write.pop()
            self.secrets[name] = secret
        assert body is not None
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.secrets:
                return 409, {"message": "already exists"}
            self.secrets[name] = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
            return 201, self.secrets[name]
        found = self.secrets[path.removeprefix("/")]
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return 409, {"message": "conflict"}
        found["data"] = {**(found.get("data") or {}), **body["data"]}
        return 200, found


def stored(key: str, value: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "data": {key: base64.b64encode(value.encode()).decode()}}


def test_a_missing_secret_is_created_with_its_prefix_and_labels() -> None:
    api = FakeSecrets()
    assert ensure(api, ADMIN, LABELS, random_value) == "created"
    made = api.secrets["prod-admin"]
    assert made["metadata"]["labels"] == LABELS
    assert re.fullmatch(r"sk-qd-[0-9a-f]{64}", base64.b64decode(made["data"]["key"]).decode())


def test_an_existing_key_is_never_written() -> None:
    api = FakeSecrets({"prod-admin": stored("key", "of-the-user")})
    assert ensure(api, ADMIN, LABELS, random_value) == "kept"
    assert api.calls == ["GET"]


def test_a_key_that_an_older_release_did_not_have_is_added_and_the_others_stay() -> None:
    api = FakeSecrets({"prod-admin": stored("other", "stays")})
    assert ensure(api, ADMIN, LABELS, random_value) == "added"
    assert set(api.secrets["prod-admin"]["data"]) == {"other", "key"}


@pytest.mark.parametrize("existing", [{}, {"prod-admin": stored("other", "x")}], ids=["create", "add"])
def test_of_two_jobs_at_once_the_first_one_wins(existing: dict[str, dict[str, Any]]) -> None:
    api = FakeSecrets(dict(existing))
    theirs = stored("key", "theirs", version="2")
    api.before_write = [("prod-admin", theirs)]
    assert ensure(api, ADMIN, LABELS, random_value) == "kept"
    assert api.secrets["prod-admin"] == theirs


def test_a_refusal_is_reported_with_the_servers_message() -> None:
    api = FakeSecrets()
    api.refusal = (403, {"message": 'secrets "prod-admin" is forbidden'})
    with pytest.raises(SecretsError, match='can\'t be read: secrets "prod-admin" is forbidden'):
        ensure(api, ADMIN, LABELS, random_value)


@pytest.mark.parametrize("text", ["name", "name/=x", "/key=", "name/key"])
def test_a_malformed_argument_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAME/KEY=PREFIX"):
        Wanted.parse(text)


def test_outside_a_pod_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a/b="], {}) == 1
    assert "KUBERNETES_SERVICE_HOST" in capsys.readouterr().err
