"""`python -m quarterdeck.kube.create_secrets NAME/KEY=PREFIX …`: create the platform's Secrets that are missing.

Run by the chart's hook Job before installation and upgrade, with the rights to create Secrets and to read and patch
these. A key that exists is never changed, so the Job may run any number of times, also twice at once. Each missing one
becomes PREFIX and 256 random bits in hex, which fit into a URL. Values are never printed.
"""

import argparse
import base64
import http.client
import json
import os
import secrets
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quarterdeck.kube.names import APP_INSTANCE, APP_PART_OF, PART_OF

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ATTEMPTS = 10
PAUSE_SECONDS = 1.0
"""Between two attempts: a pod's network may be set up some seconds after its first process."""
TIMEOUT_SECONDS = 10.0


class SecretsError(Exception):
    """The API server refuses what the Job needs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key of a Secret that has to exist."""

    name: str
    key: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """`NAME/KEY=PREFIX`. Raises ValueError."""
        where, equals, prefix = text.partition("=")
        name, slash, key = where.partition("/")
        if not (equals and slash and name and key):
            raise ValueError(f"{text!r} is not NAME/KEY=PREFIX")
        return cls(name, key, prefix)


class SecretsApi(Protocol):
    """The API server's Secrets of one namespace, as requests: the status and the decoded body."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]: ...


def ensure(api: SecretsApi, wanted: Wanted, labels: Mapping[str, str], make: Callable[[str], str]) -> str:
    """Make the key if it is missing: `created`, `added` (to an existing Secret) or `kept`. Raises SecretsError."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": wanted.name, "labels": dict(labels)},
        "type": "Opaque",
        "data": {wanted.key: base64.b64encode(make(wanted.prefix).encode()).decode()},
    }
    for _ in range(ATTEMPTS):
        status, found = api.call("GET", f"/{wanted.name}")
        if status == 404:
            status, found = api.call("POST", "", secret)
            if status == 201:
                return "created"
            if status == 409:  # another Job was faster: read what it made
                continue
            raise SecretsError(f"secret {wanted.name} can't be created: {found.get('message', status)}")
        if status != 200:
            raise SecretsError(f"secret {wanted.name} can't be read: {found.get('message', status)}")
        if (found.get("data") or {}).get(wanted.key):
            return "kept"
        version = found["metadata"]["resourceVersion"]
        change = {"metadata": {"resourceVersion": version}, "data": secret["data"]}
        status, found = api.call("PATCH", f"/{wanted.name}", change)
        if status == 200:
            return "added"
        if status != 409:
            raise SecretsError(f"secret {wanted.name} can't be changed: {found.get('message', status)}")
    raise SecretsError(f"secret {wanted.name} changes all the time")


def random_value(prefix: str) -> str:
    return prefix + secrets.token_hex(32)


class PodApi:
    """The API server, with this pod's service account."""

    def __init__(self, environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> None:
        self._host = environ["KUBERNETES_SERVICE_HOST"]
        self._port = int(environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or environ["KUBERNETES_SERVICE_PORT"])
        self._token = (account / "token").read_text().strip()
        self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        namespace = environ.get("QUARTERDECK_NAMESPACE") or (account / "namespace").read_text().strip()
        self._base = f"/api/v1/namespaces/{namespace}/secrets"

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Send a request; connection errors and a busy server are tried again. Raises OSError."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, answer = self._call_once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise OSError(f"the API server can't be reached: {error}") from error
            else:
                if status not in (429, 500, 502, 503, 504) or attempt == ATTEMPTS:
                    return status, answer
            time.sleep(PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _call_once(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._context)
        try:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": "application/json"}
            connection.request(method, self._base + path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError:
            answer = {"message": data[:200].decode("utf-8", "replace")}
        return response.status, answer if isinstance(answer, dict) else {}


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.kube.create_secrets", description=__doc__)
    parser.add_argument("wanted", nargs="+", type=Wanted.parse, metavar="NAME/KEY=PREFIX")
    parser.add_argument("--instance", default="", help="value of the label app.kubernetes.io/instance")
    options = parser.parse_args(arguments)
    labels = {APP_PART_OF: PART_OF} | ({APP_INSTANCE: options.instance} if options.instance else {})
    try:
        api = PodApi(environ)
        for wanted in options.wanted:
            outcome = ensure(api, wanted, labels, random_value)
            print(f"secret {wanted.name}, key {wanted.key}: {outcome}", file=sys.stderr)
    except (KeyError, OSError, SecretsError) as error:
        print(f"quarterdeck.kube.create_secrets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
