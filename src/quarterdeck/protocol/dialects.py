"""What each kind of server is sent. Pure.

vLLM accepts OpenAI's members and many of its own. Hosted APIs and other engines reject requests with members that they
don't know, or ignore them in silence, which is worse for a member that caps the answer. `DIALECTS` says what a kind is
sent; what one server refuses all the same is learned from its first refusal (`learn`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Dialect = Literal["vllm", "openai", "ollama"]
Cap = Literal["max_tokens", "max_completion_tokens"]

VLLM_ONLY = frozenset(
    {
        # sampling
        *("top_k", "min_p", "min_tokens", "repetition_penalty", "length_penalty", "use_beam_search", "ignore_eos"),
        *("stop_token_ids", "include_stop_str_in_output", "bad_words", "allowed_token_ids", "prompt_logprobs"),
        *("skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens", "logits_processors"),
        *(
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "structured_outputs",
            "thinking_token_budget",
        ),
        *("guided_decoding_backend", "guided_whitespace_pattern", "include_reasoning", "repetition_detection"),
        # the prompt
        *("add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template", "documents"),
        *("chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs", "cache_salt", "prompt_embeds"),
        # the engine
        *("priority", "request_id", "return_token_ids", "return_tokens_as_token_ids", "kv_transfer_params"),
        "vllm_xargs",
    }
)
"""Fields of vLLM's protocol that OpenAI's does not have."""
OTHER_CAPS = frozenset({"n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "max_length", "max_gen_len"})
"""Other servers' words for the limit of an answer. llama.cpp reads `n_predict` before `max_tokens`, so a client could
lift its key's limit with one."""
OTHER_MODELS = frozenset({"models", "fallbacks"})
"""Where routers (OpenRouter, LiteLLM) are told of further models: which one answers, and at what price, is not the
client's choice."""
OWN = frozenset({"cache"})
"""Fields of the gateway's own protocol. `metadata.session_id` is one, too: only the rest of `metadata` is sent."""
DROPPABLE = frozenset(
    {
        *("stream_options", "metadata", "user", "safety_identifier", "store"),
        *("prompt_cache_key", "prompt_cache_retention", "encoding_format"),
    }
)
"""Fields that don't shape the answer, or shape what is converted here: a server that refuses one is sent none. Others
are the caller's to leave out."""
CAPS: tuple[Cap, ...] = ("max_tokens", "max_completion_tokens")
_UNKNOWN = re.compile(
    "unknown|unrecogni[sz]ed|unsupported|not supported|unexpected|extra|additional|not permitted|cannot find"
    "|not allowed|only allowed|not recogni[sz]ed|invalid (?:parameter|argument|field|property)|does not support",
    re.IGNORECASE,
)


class Rules(msgspec.Struct, frozen=True):
    """What a kind of server is sent."""

    removed: frozenset[str] = frozenset()
    """Members that are not sent."""
    cap: Cap | None = None
    """The member that caps the output of a chat. None: whatever the request says."""
    lowest_cap: int = 0


DIALECTS: Mapping[Dialect, Rules] = {
    "vllm": Rules(),
    # Every compatible server reads `max_tokens`. `max_completion_tokens` is refused by some and ignored by others; only
    # OpenAI's own reasoning models insist on it, and they say so (see `learn`).
    "openai": Rules(VLLM_ONLY | OWN | OTHER_CAPS | OTHER_MODELS, "max_tokens"),
    # Ollama takes a limit of 0 for none.
    "ollama": Rules(VLLM_ONLY | OWN | OTHER_CAPS | OTHER_MODELS | {"options"}, "max_tokens", 1),
}


class Habits(msgspec.Struct, frozen=True):
    """What differs at one server from its kind: by configuration, or learned."""

    sent: frozenset[str] = frozenset()
    """Members of vLLM's that it knows as well."""
    refused: frozenset[str] = frozenset()
    """Members that it refuses."""
    cap: Cap | None = None
    """The member that caps the output. None: as for its kind."""


USUAL = Habits()


def translate(members: Mapping[str, msgspec.Raw], dialect: Dialect, habits: Habits = USUAL) -> dict[str, msgspec.Raw]:
    """The members that a server of this dialect accepts.

    Names that are not in lower case are left out: no API has any, and servers in Go read `MAX_TOKENS` and `Model` as
    `max_tokens` and `model`, past the key's limits.
    """
    if dialect == "vllm":
        return dict(members)
    rules = DIALECTS[dialect]
    removed = (rules.removed - habits.sent) | habits.refused
    found = {name: raw for name, raw in members.items() if name not in removed and name == name.casefold()}
    if "metadata" in found:
        found = _without_session(found)
    caps = {name: found.pop(name) for name in CAPS if name in found}
    if (cap := lowest(caps.values())) is not None:
        # Only a chat has two names for it.
        name = habits.cap or rules.cap if "messages" in members else None
        if rules.lowest_cap and msgspec.json.decode(cap) < rules.lowest_cap:
            cap = msgspec.Raw(b"%d" % rules.lowest_cap)
        found[name or next(iter(caps))] = cap
    return found


def learn(habits: Habits, members: Mapping[str, object], message: str, param: str | None) -> Habits:
    """What a refusal of these members teaches. Unchanged: nothing, the request itself is at fault."""
    names = {name for name in members if name == param or _is_named(name, message)}
    if not names:
        return habits
    is_unknown = _UNKNOWN.search(message) is not None
    cap = habits.cap
    if "max_tokens" in members and "max_completion_tokens" in message and is_unknown:
        cap = "max_completion_tokens"
    elif "max_completion_tokens" in names and is_unknown and param != "max_tokens":
        cap = "max_tokens"
    refused = habits.refused | (names & DROPPABLE if is_unknown else frozenset())
    if cap == habits.cap and refused == habits.refused:
        return habits
    return Habits(habits.sent, refused, cap)


def lowest(caps: Iterable[msgspec.Raw]) -> msgspec.Raw | None:
    """The lowest of several raw numbers; nulls don't count. None: there is none."""
    best: msgspec.Raw | None = None
    value: float | None = None
    for raw in caps:
        number = msgspec.json.decode(raw)
        if isinstance(number, int | float) and (value is None or number < value):
            best, value = raw, number
    return best


def _without_session(found: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    metadata = msgspec.json.decode(found["metadata"])
    kept = {name: value for name, value in metadata.items() if name != "session_id"} if metadata else {}
    if kept == metadata and kept:
        return found
    rest = {name: raw for name, raw in found.items() if name != "metadata"}
    return {**rest, "metadata": msgspec.Raw(msgspec.json.encode(kept))} if kept else rest


def _is_named(name: str, message: str) -> bool:
    """Whether a message names a member: in quotes, as a path (`body.user`), or after a colon or comma."""
    return re.search(rf"(?:['\"`.]|[:,] ?){name}(?![\w-])", message) is not None
