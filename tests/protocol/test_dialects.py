"""Servers receive the fields that they know."""

import msgspec
import pytest

from quarterdeck.protocol.dialects import DIALECTS, USUAL, VLLM_ONLY, Dialect, Habits, learn, translate


def raw(**values: object) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def test_vllm_takes_every_field() -> None:
    members = raw(model="m", top_k=5, something_new=1)
    assert translate(members, "vllm") == members


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_others_are_not_sent_what_only_vllm_knows(dialect: Dialect) -> None:
    members = raw(model="m", temperature=0, something_new=1)
    assert translate(members | raw(**dict.fromkeys(VLLM_ONLY, 1)), dialect) == members


def test_a_cap_is_sent_once_as_max_tokens() -> None:
    chat = raw(messages=[])
    for dialect in DIALECTS:
        if dialect != "vllm":
            assert translate(chat | raw(max_completion_tokens=5), dialect) == chat | raw(max_tokens=5)
            assert translate(chat | raw(max_completion_tokens=5, max_tokens=7), dialect) == chat | raw(max_tokens=5)
            assert translate(chat | raw(max_completion_tokens=None, max_tokens=7), dialect) == chat | raw(max_tokens=7)


def test_the_gateways_own_members_are_not_sent() -> None:
    members = raw(model="m", cache={}, metadata={"session_id": "s"})
    assert translate(members, "openai") == raw(model="m")
    assert translate(raw(metadata={"session_id": "s", "a": "b"}), "openai") == raw(metadata={"a": "b"})
    assert translate(raw(metadata=None), "openai") == {}
    assert translate(members, "vllm") == members


def test_a_server_may_know_members_of_vllms_and_refuse_others() -> None:
    habits = Habits(frozenset({"top_k"}), frozenset({"seed"}))
    assert translate(raw(top_k=1, min_p=1, seed=1), "openai", habits) == raw(top_k=1)


REFUSALS = {
    "OpenAI": ("Unrecognized request argument supplied: metadata", None, {"metadata"}),
    "Gemini": ('Invalid JSON payload received. Unknown name "metadata": Cannot find field.', None, {"metadata"}),
    "Mistral": ("body.metadata: Extra inputs are not permitted; body.user: Extra inputs", None, {"metadata", "user"}),
    "Groq": ("property 'metadata' is unsupported", None, {"metadata"}),
    "serde": ("unknown field `stream_options`, expected one of `model`", None, {"stream_options"}),
    "by its param": ("This is not allowed.", "metadata", {"metadata"}),
    "a word": ("Conversation roles must alternate user/assistant", None, set()),
    "a quoted word": ("Roles must be 'user' or 'assistant'", None, set()),
    "a member that shapes the answer": ("Unknown parameter: 'seed'.", "seed", set()),
    "a value": ("max_tokens is too large: 9. This model supports at most 8.", "max_tokens", set()),
    "nothing": ("", None, set()),
}


@pytest.mark.parametrize(("message", "param", "learned"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_teaches_which_members_to_leave_out(message: str, param: str | None, learned: set[str]) -> None:
    members = dict.fromkeys(("metadata", "user", "stream_options", "seed", "max_tokens"))
    assert learn(USUAL, members, message, param) == Habits(refused=frozenset(learned))


def test_a_refusal_teaches_the_name_of_the_cap() -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    habits = learn(USUAL, {"max_tokens": 1}, message, "max_tokens")
    assert habits == Habits(cap="max_completion_tokens")
    chat = raw(messages=[])
    assert translate(chat | raw(max_tokens=5), "openai", habits) == chat | raw(max_completion_tokens=5)
    assert translate(raw(prompt="x", max_tokens=5), "openai", habits) == raw(prompt="x", max_tokens=5)
    assert learn(habits, {"max_completion_tokens": 1}, message, "max_tokens") == habits


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
@pytest.mark.parametrize(
    "name",
    ["MAX_TOKENS", "Max_Tokens", "Model", "max_to\u212aens", "me\u017f\u017fages", "n_predict", "max_new_tokens"],
)
def test_no_other_spelling_of_a_member_reaches_a_server_that_might_read_it(dialect: Dialect, name: str) -> None:
    members = raw(model="m", messages=[], max_tokens=5)
    assert translate(members | raw(**{name: 10**6}), dialect) == members


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_a_client_names_no_other_models(dialect: Dialect) -> None:
    assert translate(raw(model="m", models=["dear"], fallbacks=["dear"]), dialect) == raw(model="m")


def test_a_limit_of_0_is_no_limit_for_ollama_so_it_is_sent_1() -> None:
    assert translate(raw(model="m", prompt="a", max_tokens=0), "ollama") == raw(model="m", prompt="a", max_tokens=1)
    assert translate(raw(model="m", prompt="a", max_tokens=0), "openai") == raw(model="m", prompt="a", max_tokens=0)
