"""Request fields by kind of server. Pure.

vLLM accepts OpenAI's fields and many of its own. Hosted APIs reject requests with fields that they don't know.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

Dialect = Literal["vllm", "openai", "ollama"]

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


def translate(members: Mapping[str, msgspec.Raw], dialect: Dialect) -> dict[str, msgspec.Raw]:
    """The members that a server of this dialect accepts."""
    if dialect == "vllm":
        return dict(members)
    found = {name: raw for name, raw in members.items() if name not in VLLM_ONLY}
    if dialect == "ollama" and (most := found.pop("max_completion_tokens", None)) is not None:
        found.setdefault("max_tokens", most)  # the only name that it knows
    return found
