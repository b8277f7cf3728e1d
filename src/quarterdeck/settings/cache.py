"""Whose answers are kept, for how long, and who may be given them again. Off unless said otherwise."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator


class SemanticPolicy(BaseModel):
    """Answers also to questions that say the same in other words. English; what it gets wrong: docs/caching.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    embedding_model: str
    """Which of `models:` makes the vectors. The threshold was measured with all-MiniLM-L6-v2."""
    threshold: float = Field(default=0.85, gt=0, le=1)
    """The least cosine of two questions that count as one, after their words were found to agree.

    0.85: the highest that lost no paraphrase on the half of the pairs that it was chosen on.
    """


class CachePolicy(BaseModel):
    """What is done with the answers of one name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    exact: bool = True
    """Whether the same request is given the same answer again."""
    ttl_seconds: PositiveInt = 3600
    """How long an answer is kept. One hour: long enough for retries and evals, short enough that a mistake is forgotten
    within a shift."""
    scope: Literal["key", "team", "org"] = "team"
    """Who may be given an answer that somebody else paid for."""
    temperature: Literal["repeatable", "any"] = "repeatable"
    """repeatable: only answers that the engine would give again, those of temperature 0 or with a seed. any: the first
    answer is everybody's, at any temperature."""
    max_entry_kb: PositiveInt = 256
    """A longer answer is not kept, KiB. 256: some 1000 streamed tokens, or an embedding of 8 texts."""
    wait_seconds: NonNegativeFloat = 30
    """How long a request waits for an equal one under way in its gateway before it goes on by itself. 0: not at all."""
    semantic: SemanticPolicy | None = None
    """None: only the same request is the same."""

    @model_validator(mode="after")
    def _semantic_stands_on_exact(self) -> Self:
        if self.semantic is not None and not self.exact:
            raise ValueError("a semantic cache keeps its answers in the exact one: set `exact: true`")
        return self


class CacheConfig(BaseModel):
    """`cache:` of quarterdeck.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    default: CachePolicy = CachePolicy(exact=False)
    """For every name that has no policy of its own. Off: nobody is given an old answer who did not ask for it."""
    policies: dict[str, CachePolicy] = Field(default_factory=dict)
    """By the name that a request calls: a model's, an adapter's, an alias' or a route's. A model's holds for its
    aliases too."""
    max_mb: PositiveInt = 64
    """MiB of answers that one organisation keeps in Redis; what would expire first makes room."""
    semantic_entries: PositiveInt = 10_000
    """Questions that one gateway remembers to know them again, all scopes together; the oldest makes room. 2 to 14 KiB
    each."""
