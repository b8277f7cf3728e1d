"""Usage and costs as OpenAI's objects. A project is a team, a user is a request's `safety_identifier` or `user`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from quarterdeck.money import plain_text
from quarterdeck.resources.usage.pages import Page
from quarterdeck.store.usage import GroupBy, Usage

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "completions": ("chat", "completions"),
    "embeddings": ("embeddings",),
    "moderations": ("classify",),
    "images": ("images_generations", "images_edits", "images_variations"),
    "audio_speeches": ("audio_speech",),
    "audio_transcriptions": ("audio_transcriptions", "audio_translations"),
    "vector_stores": (),
    "code_interpreter_sessions": (),
    "file_search_calls": (),
    "web_search_calls": (),
    "decisions": (),
}
"""Operations of the ledger by OpenAI's kind of usage. Kinds that are not served have none."""
GROUPS: Mapping[str, GroupBy] = {"project_id": "team", "user_id": "user", "api_key_id": "key", "model": "model"}
COST_GROUPS: Mapping[str, GroupBy] = {
    "project_id": "team",
    "user_id": "user",
    "api_key_id": "key",
    "line_item": "model",
}
SINGLE_VALUED = frozenset({"batch", "service_tier", "api_source"})
"""OpenAI's groups that have one value here, which is null."""

OWN_GROUPS: Mapping[str, frozenset[str]] = {
    "images": frozenset({"size", "source"}),
    "file_search_calls": frozenset({"vector_store_id"}),
    "web_search_calls": frozenset({"context_level"}),
}
"""Groups that OpenAI has for one kind only. Each has a filter of its name in the plural."""

Groups = Mapping[str, str | None]


def usage_page(kind: str, page: Page, found: Iterable[Usage], names: Sequence[str]) -> dict[str, Any]:
    """`found` has a bucket each, and groups in the order of `names`, keys of GROUPS."""

    def result(usage: Usage, groups: Groups) -> dict[str, Any]:
        made: dict[str, Any] = {
            "object": f"organization.usage.{kind}.result",
            **_counted(kind, usage),
            "num_model_requests": usage.requests,
            **{name: groups.get(name) for name in GROUPS},
        }
        if kind == "completions":
            made |= {
                "output_tokens": usage.output_tokens,
                "input_cached_tokens": usage.cached_tokens,
                "input_uncached_tokens": usage.input_tokens - usage.cached_tokens,
                "input_audio_tokens": 0,
                "output_audio_tokens": 0,
                **dict.fromkeys(sorted(SINGLE_VALUED)),
            }
        return made

    return _page(page, found, names, result)


def _counted(kind: str, usage: Usage) -> dict[str, Any]:
    """What OpenAI counts of a kind besides requests. Seconds are whole, rounded up, as OpenAI's are."""
    if kind == "images":
        return {"images": usage.images, "size": None, "source": None}
    if kind == "audio_speeches":
        return {"characters": usage.characters}
    if kind == "audio_transcriptions":
        return {"seconds": -(-usage.audio_ms // 1000)}
    return {"input_tokens": usage.input_tokens}


def cost_page(page: Page, found: Iterable[Usage], names: Sequence[str]) -> dict[str, Any]:
    """`found` has a bucket each, and groups in the order of `names`, keys of COST_GROUPS."""

    def result(usage: Usage, groups: Groups) -> dict[str, Any]:
        return {
            "object": "organization.costs.result",
            "amount": {"value": exact_number(usage.cost), "currency": "usd"},
            **{name: groups.get(name) for name in COST_GROUPS},
        }

    return _page(page, found, names, result)


def exact_number(money: Decimal) -> msgspec.Raw:
    """A JSON number with every digit."""
    return msgspec.Raw(plain_text(money).encode())


def _page(
    page: Page, found: Iterable[Usage], names: Sequence[str], result: Callable[[Usage, Groups], dict[str, Any]]
) -> dict[str, Any]:
    results: dict[int, list[dict[str, Any]]] = {start: [] for start in page.buckets()}
    for usage in found:
        if usage.bucket is not None:
            results[usage.bucket].append(result(usage, dict(zip(names, usage.group, strict=True))))
    data = [
        {"object": "bucket", "start_time": start, "end_time": start + page.width, "results": rows}
        for start, rows in results.items()
    ]
    return {"object": "page", "data": data, "has_more": page.next is not None, "next_page": page.next}
