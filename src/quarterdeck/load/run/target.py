"""Finds the target of a run and checks it with one request of each kind before any load starts.

A target that can't be tested raises TargetError, whose message is one line for the terminal.
"""

import http.client
import json
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFLIGHT_SECONDS = 60.0
"""Time limit of each check: a model may have to load, guided decoding to compile."""
_QUESTION = [{"role": "user", "content": "Say one word."}]


class TargetError(Exception):
    """The target can't be tested; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server and the models to use."""

    url: str
    """With `/v1`, as OpenAI clients expect."""
    key: str
    model: str
    embedding_model: str | None
    kind: str
    """`quarterdeck`, or `openai-compatible`."""

    def __repr__(self) -> str:  # never the key
        return f"Target(url={self.url!r}, model={self.model!r})"

    @property
    def root(self) -> str:
        """Without `/v1`; the base of `/metrics`."""
        return self.url.removesuffix("/v1")


def local(state: Path) -> tuple[str, str] | None:
    """(URL, key) of the platform on this machine, from the file that `quarterdeck up` writes. None: no such file."""
    try:
        values = tomllib.loads((state / "credentials").read_text(encoding="utf-8"))
        return str(values["base_url"]), str(values["api_key"])
    except (OSError, ValueError, KeyError):
        return None


def address(url: str) -> str:
    """Normalize a base URL: a bare `http://host:port` gets `/v1`. Raises TargetError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"{url!r} is not a URL such as http://127.0.0.1:8000/v1")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def find(url: str, key: str, model: str | None, embedding_model: str | None, *, wants_embeddings: bool) -> Target:
    """List the models, then send one request to each that is needed. Raises TargetError."""
    url = address(url)
    preflight = _Preflight(url, key)
    status, body = preflight.send("GET", "/models")
    preflight.raise_for_status(status, body, "GET /models")
    if (listed := _models(body)) is None:
        raise TargetError(f"{url} is not an OpenAI endpoint: GET /models returned {status} without a list of models")
    names = [str(entry["id"]) for entry in listed]
    kind = "quarterdeck" if any(entry.get("owned_by") == "quarterdeck" for entry in listed) else "openai-compatible"
    if model is not None:
        preflight.must_chat(model, names)
    else:
        model = next((name for name in names if preflight.chats(name)), None)
        if model is None:
            raise TargetError(f"{url}: no model answers a chat ({', '.join(names[:5]) or 'it lists none'})")
    if wants_embeddings and embedding_model is None:
        others = [name for name in names if name != model]
        embedding_model = next((name for name in (*others, model) if preflight.embeds(name)), None)
    return Target(url, key, model, embedding_model, kind)


class _Preflight:
    """Requests that check a target."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._parts = urlsplit(url)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Raises TargetError without an HTTP response."""
        parts = self._parts
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        where = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        try:
            connection = make(parts.hostname or "", parts.port, timeout=PREFLIGHT_SECONDS)
            try:
                data = None if body is None else json.dumps(body).encode()
                connection.request(method, parts.path.rstrip("/") + path, data, self._headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()
        except ConnectionRefusedError:
            raise TargetError(f"{where}: connection refused") from None
        except ssl.SSLCertVerificationError as error:
            raise TargetError(f"{where}: its TLS certificate is not trusted ({error.verify_message})") from None
        except ssl.SSLError as error:
            raise TargetError(f"{where} does not speak TLS ({error.reason or error}); is it http://?") from None
        except TimeoutError:
            raise TargetError(f"{where} did not answer within {PREFLIGHT_SECONDS:.0f} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TargetError(f"{where}: request failed: {reason[:200]}") from None

    def raise_for_status(self, status: int, body: bytes, what: str) -> None:
        """Raises TargetError for a status of 400 or above."""
        if status < 400:
            return
        message = _message(body)
        if status == 401:
            raise TargetError(f"{self._url} rejects this key (401{message})")
        if status == 403:
            raise TargetError(f"{self._url} denies access (403{message})")
        if not message:
            raise TargetError(f"{self._url} is not an OpenAI endpoint: {what} returned {status}")
        raise TargetError(f"{self._url}: {what} returned {status}{message}")

    def chat(self, model: str) -> tuple[int, bytes]:
        return self.send("POST", "/chat/completions", {"model": model, "messages": _QUESTION, "max_tokens": 1})

    def chats(self, model: str) -> bool:
        status, body = self.chat(model)
        if status in (401, 403):
            self.raise_for_status(status, body, "a chat")
        return status < 400

    def must_chat(self, model: str, names: list[str]) -> None:
        status, body = self.chat(model)
        if status == 404:
            raise TargetError(f"{self._url} has no model {model!r}; it has {', '.join(names[:8]) or 'none'}")
        self.raise_for_status(status, body, f"a chat with {model}")

    def embeds(self, model: str) -> bool:
        return self.send("POST", "/embeddings", {"model": model, "input": "one"})[0] < 400


def _models(body: bytes) -> list[dict[str, Any]] | None:
    """The entries of a list of models; None: the body is not one."""
    try:
        parsed = json.loads(body)
        return [entry for entry in parsed["data"] if "id" in entry]
    except (ValueError, TypeError, KeyError):
        return None


def _message(body: bytes) -> str:
    """`: ` and the error's message in one line; "" if the body is not an OpenAI error."""
    try:
        error = json.loads(body)["error"]
        return f": {' '.join(str(error['message']).split())[:200]}"
    except (ValueError, TypeError, KeyError):
        return ""
