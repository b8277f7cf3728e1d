"""Who is asked: found from what is given and what lies on this machine, and asked once before any load starts.

A target that can't be tested is one line for a person (TargetError) and no load.
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
"""How long the first answer may take: a model may have to load, guided decoding to compile."""
_QUESTION = [{"role": "user", "content": "Say one word."}]


class TargetError(Exception):
    """There is nothing to test; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server and what is asked of it."""

    url: str
    """With `/v1`, as OpenAI clients want it."""
    key: str
    model: str
    embedding_model: str | None
    kind: str
    """`quarterdeck`, or `openai-compatible`."""

    def __repr__(self) -> str:  # never the key
        return f"Target(url={self.url!r}, model={self.model!r})"

    @property
    def root(self) -> str:
        """Without `/v1`: metrics stand there."""
        return self.url.removesuffix("/v1")


def local(state: Path) -> tuple[str, str] | None:
    """(URL, key) of the platform on this machine, from the file that `quarterdeck up` writes. None: there is none."""
    try:
        told = tomllib.loads((state / "credentials").read_text(encoding="utf-8"))
        return str(told["base_url"]), str(told["api_key"])
    except (OSError, ValueError, KeyError):
        return None


def address(url: str) -> str:
    """A base URL as it is meant: a bare `http://host:port` gets `/v1`. Raises TargetError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"{url!r} is no URL: write http://127.0.0.1:8000/v1")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def find(url: str, key: str, model: str | None, embedding_model: str | None, *, wants_embeddings: bool) -> Target:
    """Ask for the models, then one question of each that is needed. Raises TargetError."""
    url = address(url)
    asker = _Asker(url, key)
    status, body = asker.send("GET", "/models")
    asker.refuse(status, body, "GET /models")
    if (listed := _models(body)) is None:
        raise TargetError(f"{url} is no OpenAI endpoint: GET /models answered {status} without a list of models")
    names = [str(entry["id"]) for entry in listed]
    kind = "quarterdeck" if any(entry.get("owned_by") == "quarterdeck" for entry in listed) else "openai-compatible"
    if model is not None:
        asker.must_chat(model, names)
    else:
        model = next((name for name in names if asker.chats(name)), None)
        if model is None:
            raise TargetError(f"{url}: none of its models answers a chat ({', '.join(names[:5]) or 'it has none'})")
    if wants_embeddings and embedding_model is None:
        others = [name for name in names if name != model]
        embedding_model = next((name for name in (*others, model) if asker.embeds(name)), None)
    return Target(url, key, model, embedding_model, kind)


class _Asker:
    """The preflight's requests."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._parts = urlsplit(url)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Raises TargetError where no HTTP answer comes."""
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
            raise TargetError(f"{where} refuses connections: nothing listens there") from None
        except ssl.SSLCertVerificationError as error:
            raise TargetError(f"{where}: its TLS certificate is not trusted ({error.verify_message})") from None
        except ssl.SSLError as error:
            raise TargetError(f"{where} does not speak TLS ({error.reason or error}): is it http:// ?") from None
        except TimeoutError:
            raise TargetError(f"{where} did not answer within {PREFLIGHT_SECONDS:.0f} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise TargetError(f"{where} can't be asked: {said[:200]}") from None

    def refuse(self, status: int, body: bytes, what: str) -> None:
        """Raises TargetError where the answer is no success."""
        if status < 400:
            return
        said = _message(body)
        if status == 401:
            raise TargetError(f"{self._url} refuses this key (401{said})")
        if status == 403:
            raise TargetError(f"{self._url} forbids this (403{said})")
        if not said:
            raise TargetError(f"{self._url} is no OpenAI endpoint: {what} answered {status}")
        raise TargetError(f"{self._url}: {what} answered {status}{said}")

    def chat(self, model: str) -> tuple[int, bytes]:
        return self.send("POST", "/chat/completions", {"model": model, "messages": _QUESTION, "max_tokens": 1})

    def chats(self, model: str) -> bool:
        status, body = self.chat(model)
        if status in (401, 403):
            self.refuse(status, body, "a chat")
        return status < 400

    def must_chat(self, model: str, names: list[str]) -> None:
        status, body = self.chat(model)
        if status == 404:
            raise TargetError(f"{self._url} has no model {model!r}; it has {', '.join(names[:8]) or 'none'}")
        self.refuse(status, body, f"a chat with {model}")

    def embeds(self, model: str) -> bool:
        return self.send("POST", "/embeddings", {"model": model, "input": "one"})[0] < 400


def _models(body: bytes) -> list[dict[str, Any]] | None:
    """None: this is no list of models."""
    try:
        told = json.loads(body)
        return [entry for entry in told["data"] if "id" in entry]
    except (ValueError, TypeError, KeyError):
        return None


def _message(body: bytes) -> str:
    """`: what the server said`, in one line; "" where that is not in OpenAI's form."""
    try:
        told = json.loads(body)["error"]
        return f": {' '.join(str(told['message']).split())[:200]}"
    except (ValueError, TypeError, KeyError):
        return ""
