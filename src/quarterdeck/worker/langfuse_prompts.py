"""Prompts at a Langfuse project, by the generated client of its SDK: the only module that imports `langfuse`.

The SDK's own `Langfuse` class is not used. It reads prompts through a cache that serves old ones, can't list them, and
starts threads and a tracer; the generated client is one httpx client, without a thread (docs/adr/0020).
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from quarterdeck.resources.prompts.langfuse_version import LangfuseContent
from quarterdeck.telemetry.logging import redact

LATEST = "latest"
"""A label that Langfuse sets by itself."""
PAGE = 100
"""Prompts in a list: the most that the server returns at once."""
MAX_MESSAGE = 500
"""Characters of a commit message at Langfuse."""
MAX_PAGES = 300
"""Of prompts: three times what an organisation may have here."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A version of ours has a quarter of a MiB at most."""
CALL_SECONDS = 60.0
"""A call takes at most this long, also where the server sends a byte now and then."""
_LATER = (401, 403, 408, 425, 429)


class LangfuseUnavailableError(Exception):
    """No answer, or none for now: a key that is refused, a limit, an outage. `retry_after`: seconds, if it says so."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LangfuseRefusedError(Exception):
    """The server does not take this, now or later."""


@dataclass(frozen=True, slots=True)
class LangfusePrompt:
    """A prompt in the list."""

    name: str
    versions: tuple[int, ...]
    labels: tuple[str, ...]
    """Of any version; without `latest`."""
    tags: tuple[str, ...]
    updated: str


@dataclass(frozen=True, slots=True)
class LangfuseVersion:
    number: int
    id: str
    """Identifies it also where its number is used again. Empty: the server does not say."""
    labels: tuple[str, ...]
    message: str
    content: LangfuseContent = field(repr=False)


class LangfusePrompts:
    """Raises LangfuseUnavailableError everywhere, and LangfuseRefusedError where something is sent.

    The client's own retries are off: a repeated creation makes two versions. What is not known to have succeeded is
    looked up first, by the next turn.
    """

    def __init__(self, url: str, public_key: str, secret_key: str, *, timeout: float = 20.0) -> None:
        """Raises ImportError where the extra `langfuse` is not installed."""
        import httpx

        from quarterdeck.worker.bounded_answers import bound_answers

        api = importlib.import_module("langfuse.api.client")
        errors = importlib.import_module("langfuse.api.core.api_error")
        self._types = importlib.import_module("langfuse.api.prompts.types")
        self._api_error: type[Exception] = errors.ApiError
        self._away = (httpx.HTTPError, httpx.InvalidURL, OSError)
        self._http = httpx.AsyncClient(timeout=timeout, follow_redirects=False)
        bound_answers(self._http, MAX_ANSWER_BYTES)
        self._api = api.AsyncLangfuseAPI(
            base_url=url,
            username=public_key,
            password=secret_key,
            x_langfuse_public_key=public_key,
            x_langfuse_sdk_name="python",
            httpx_client=self._http,
        )
        self._options = {"max_retries": 0}

    async def project(self) -> str:
        """The id of the project that the keys belong to."""
        found = await self._call(self._api.projects.get(request_options=self._options))
        return str(found.data[0].id)

    async def list(self, name: str | None = None) -> AsyncIterator[LangfusePrompt]:
        """All prompts, by name."""
        page = 1
        while True:
            found = await self._call(
                self._api.prompts.list(name=name, page=page, limit=PAGE, request_options=self._options)
            )
            for each in found.data:
                labels = tuple(sorted(label for label in each.labels if label != LATEST))
                tags, updated = tuple(each.tags), each.last_updated_at.isoformat()
                yield LangfusePrompt(each.name, tuple(sorted(each.versions)), labels, tags, updated)
            if page >= found.meta.total_pages:
                return
            page += 1
            if page > MAX_PAGES:
                raise LangfuseUnavailableError(f"the project has more than {MAX_PAGES * PAGE} prompts")

    async def find(self, name: str) -> LangfusePrompt | None:
        async for each in self.list(name):
            if each.name == name:
                return each
        return None

    async def version(self, name: str, number: int) -> LangfuseVersion | None:
        """A version as it is stored. None: it does not exist."""
        return await self._get(name, version=number)

    async def labelled(self, name: str, label: str) -> LangfuseVersion | None:
        """The version that a label is at. None: it is at none."""
        return await self._get(name, label=label)

    async def create(self, name: str, content: LangfuseContent, message: str) -> LangfuseVersion:
        """Create the next version, or a prompt."""
        types = self._types
        fields: dict[str, Any] = {"name": name, "config": content.config or {}, "labels": []}
        if message:
            fields["commit_message"] = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        if isinstance(content.prompt, str):
            request = types.CreateTextPromptRequest(prompt=content.prompt, type="text", **fields)
        else:
            messages = [self._message(each) for each in content.prompt]
            request = types.CreateChatPromptRequest(prompt=messages, type="chat", **fields)
        return _version(await self._call(self._api.prompts.create(request=request, request_options=self._options)))

    async def add_labels(self, name: str, number: int, labels: Sequence[str]) -> None:
        """Move labels to a version. Its other labels stay: the API can't remove one."""
        await self._call(
            self._api.prompt_version.update(
                quote(name, safe=""), number, new_labels=list(labels), request_options=self._options
            )
        )

    async def close(self) -> None:
        await self._http.aclose()

    def _message(self, message: Mapping[str, Any]) -> Any:
        if message.get("type") == "placeholder":
            return self._types.PlaceholderMessage(name=message["name"], type="placeholder")
        return self._types.ChatMessage(role=message["role"], content=message["content"], type="chatmessage")

    async def _get(self, name: str, **which: Any) -> LangfuseVersion | None:
        """Without resolving references to other prompts: what is stored is what is compared."""
        try:
            found = await self._call(
                self._api.prompts.get(quote(name, safe=""), resolve=False, request_options=self._options, **which)
            )
        except _MissingError:
            return None
        return _version(found)

    async def _call(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await call
        except self._api_error as error:
            status, body = getattr(error, "status_code", None) or 0, getattr(error, "body", None)
            text = f"HTTP {status} {_words(body)}".strip()
            if status == 404:
                raise _MissingError(text) from None
            if status in _LATER or status >= 500 or status < 400:
                raise LangfuseUnavailableError(text, _retry_after(getattr(error, "headers", None))) from None
            raise LangfuseRefusedError(text) from None
        except self._away as error:
            raise LangfuseUnavailableError(f"{type(error).__name__}: {error}"[:300]) from None
        except asyncio.CancelledError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            # What answers is no Langfuse server, or one of another version: pydantic's errors are ValueErrors.
            raise LangfuseUnavailableError(f"unexpected answer: {type(error).__name__}") from None


class _MissingError(LangfuseRefusedError):
    """404."""


def _version(found: Any) -> LangfuseVersion:
    prompt = found.prompt
    if not isinstance(prompt, str):
        prompt = [each if isinstance(each, dict) else each.dict() for each in prompt]
    labels = tuple(sorted(label for label in found.labels if label != LATEST))
    message = found.commit_message or ""
    return LangfuseVersion(
        found.version, str(getattr(found, "id", None) or ""), labels, message, LangfuseContent(prompt, found.config)
    )


def _retry_after(headers: Mapping[str, str] | None) -> float:
    text = {name.lower(): value for name, value in (headers or {}).items()}.get("retry-after", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdecimal() else 0.0


def _words(body: Any) -> str:
    message = body.get("message") or body.get("error") if isinstance(body, Mapping) else body
    return redact(" ".join(str(message or "").split())[:300])
