"""Questions are found in other words by their context, their normalized form and their vector."""

import asyncio
import json
from typing import Any

import pytest
from tests.inference.cache.samples import ALICE, config, policy_of

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import EngineUnavailableError
from quarterdeck.inference.cache.key import make_query
from quarterdeck.inference.cache.semantic import MAX_WORDINGS, SemanticCache, SemanticQuery, Vector, make_semantic_query
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.request import decode

POLICY = policy_of(config("{default: {exact: true, semantic: {embedding_model: minilm}}}"))
RESET, RESET_TOO = "How do I reset my password?", "Please tell me how to reset my password."


class Vectors:
    """An embedding model with given vectors. It records what it embeds."""

    def __init__(self) -> None:
        self.places: dict[str, Vector] = {}
        self.asked: list[list[str]] = []
        self.error: Exception | None = None

    async def __call__(self, model: str, texts: list[str]) -> list[Vector]:
        assert model == "minilm"
        self.asked.append(texts)
        if self.error is not None:
            raise self.error
        return [self.places.get(text, (1.0, 0.0)) for text in texts]


@pytest.fixture
def vectors() -> Vectors:
    return Vectors()


@pytest.fixture
def cache(vectors: Vectors) -> SemanticCache:
    return SemanticCache(vectors, max_entries=100, now=lambda: 0.0)


def asked(
    content: Any = RESET, *, principal: Principal = ALICE, policy: Any = POLICY, **changes: Any
) -> SemanticQuery | None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0}
    text = json.dumps(body | changes).encode()
    head = Head("req_1", Operation.CHAT, principal, 0.0)
    request = decode(Operation.CHAT, text)
    query = make_query(policy, head, request)
    assert query is not None
    return make_semantic_query(query, head, request)


def known(*args: Any, **kwargs: Any) -> SemanticQuery:
    found = asked(*args, **kwargs)
    assert found is not None
    return found


async def test_the_same_in_other_words_is_known(cache: SemanticCache) -> None:
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known(RESET_TOO)) == "k"


async def test_a_question_of_another_normalized_form_costs_no_vector(cache: SemanticCache, vectors: Vectors) -> None:
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known("How do I reset my router?")) is None
    assert vectors.asked == []


async def test_vectors_that_are_far_apart_are_two_questions(cache: SemanticCache, vectors: Vectors) -> None:
    vectors.places = {RESET: (1.0, 0.0), RESET_TOO: (0.8, 0.6)}
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known(RESET_TOO)) is None


async def test_the_nearest_of_several_wordings_answers(cache: SemanticCache, vectors: Vectors) -> None:
    vectors.places = {RESET: (1.0, 0.0), RESET_TOO: (0.0, 1.0), "How can I reset my password?": (0.1, 1.0)}
    cache.remember(known(), "k", seconds=60)
    cache.remember(known(RESET_TOO), "near", seconds=60)
    assert await cache.find(known("How can I reset my password?")) == "near"


async def test_a_wordings_vector_is_made_once(cache: SemanticCache, vectors: Vectors) -> None:
    cache.remember(known(), "k", seconds=60)
    await cache.find(known(RESET_TOO))
    await cache.find(known("How can I reset my password?"))
    assert vectors.asked == [[RESET_TOO, RESET], ["How can I reset my password?"]]


@pytest.mark.parametrize(
    "around",
    [
        {"max_tokens": 5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"stream": True},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": RESET}]},
        {"messages": [{"role": "user", "content": RESET, "name": "bob"}]},
        {"principal": Principal("key_z", "z", "default", "blue", ALICE.limits)},
    ],
    ids=str,
)
async def test_all_around_the_last_message_must_be_equal(cache: SemanticCache, around: dict[str, Any]) -> None:
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known(**around)) is None


async def test_one_text_part_is_its_text(cache: SemanticCache) -> None:
    cache.remember(known([{"type": "text", "text": RESET}]), "k", seconds=60)
    assert await cache.find(known(RESET_TOO)) == "k"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": RESET}],
        [{"role": "user", "content": "Who is she?"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        [{"role": "user", "content": [{"type": "text", "text": RESET}, {"type": "text", "text": "Now."}]}],
    ],
    ids=str,
)
def test_what_is_no_short_text_of_a_user_is_not_looked_for(messages: list[Any]) -> None:
    assert asked(messages=messages) is None


def test_without_a_policy_nothing_is_looked_for() -> None:
    assert asked(policy=policy_of(config())) is None


@pytest.mark.parametrize("error", [EngineUnavailableError("gone"), TimeoutError()], ids=str)
async def test_a_model_that_is_away_makes_a_miss(cache: SemanticCache, vectors: Vectors, error: Exception) -> None:
    cache.remember(known(), "k", seconds=60)
    vectors.error = error
    assert await cache.find(known(RESET_TOO)) is None


async def test_vectors_of_another_space_are_never_near(cache: SemanticCache, vectors: Vectors) -> None:
    vectors.places = {RESET: (1.0, 0.0), RESET_TOO: (1.0, 0.0, 0.0)}
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known(RESET_TOO)) is None


async def test_an_answer_is_known_until_it_expires_or_is_gone(vectors: Vectors) -> None:
    clock = iter([0.0, 59.0, 61.0, 70.0, 71.0])
    cache = SemanticCache(vectors, max_entries=100, now=lambda: next(clock))
    cache.remember(known(), "k", seconds=60)
    assert await cache.find(known(RESET_TOO)) == "k"
    assert await cache.find(known(RESET_TOO)) is None
    cache.remember(known(), "k2", seconds=60)
    cache.forget(known(RESET_TOO), "k2")
    assert await cache.find(known(RESET_TOO)) is None


def test_what_is_remembered_is_bounded(vectors: Vectors) -> None:
    cache = SemanticCache(vectors, max_entries=10)
    for number in range(50):
        cache.remember(known(f"What is {number} plus 1?"), f"k{number}", seconds=60)
    assert len(cache) == 10
    for number in range(50):
        cache.remember(known(), f"k{number}", seconds=60)
    assert len(cache) <= 10
    one = SemanticCache(vectors, max_entries=100)
    for number in range(50):
        one.remember(known(), f"k{number}", seconds=60)
    assert len(one) == MAX_WORDINGS
    one.clear()
    assert len(one) == 0


async def test_two_who_ask_at_once_both_have_their_answer(cache: SemanticCache) -> None:
    cache.remember(known(), "k", seconds=60)
    assert set(await asyncio.gather(cache.find(known(RESET_TOO)), cache.find(known(RESET_TOO)))) == {"k"}
