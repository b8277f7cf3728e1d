"""Response caching: which answers are kept, for how long, and who may receive them. Off by default."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator


class SemanticPolicy(BaseModel):
    """Also answer rephrased questions from the cache. Experimental, English only.

    It finds 31 % of the paraphrases of a held-out set, and took none of its 1,008 near misses for the same question
    (less than 0.3 %): docs/caching.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    embedding_model: str
    """The entry of `models:` that computes embeddings. The threshold was measured with all-MiniLM-L6-v2."""
    threshold: float = Field(default=0.85, gt=0, le=1)
    """Minimum cosine similarity of two questions treated as equal, after a check that their words agree.

    0.85: the highest value that missed no paraphrase on the half of the pairs used to choose it.
    """


class CachePolicy(BaseModel):
    """How answers of one model name are cached."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    exact: bool = True
    """Whether identical requests are answered from the cache."""
    ttl_seconds: PositiveInt = 3600
    """How long an answer is kept, in seconds. One hour: long enough for retries and evals, short enough that a mistake
    is gone within a shift."""
    scope: Literal["key", "team", "org"] = "team"
    """Which callers share cached answers."""
    temperature: Literal["repeatable", "any"] = "repeatable"
    """repeatable: cache only answers that the engine would reproduce (temperature 0 or a seed). any: cache answers at
    any temperature."""
    max_entry_kb: PositiveInt = 256
    """Maximum size of a cached answer in KiB. 256: about 1000 streamed tokens, or embeddings of 8 texts."""
    wait_seconds: NonNegativeFloat = 30
    """How long a request waits for an identical one in flight in its gateway, in seconds. 0: not at all."""
    semantic: SemanticPolicy | None = None
    """Semantic caching. None: only identical requests match."""

    @model_validator(mode="after")
    def _semantic_stands_on_exact(self) -> Self:
        if self.semantic is not None and not self.exact:
            raise ValueError("a semantic cache stores its answers in the exact cache: set `exact: true`")
        return self


class CacheConfig(BaseModel):
    """`cache:` of quarterdeck.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    default: CachePolicy = CachePolicy(exact=False)
    """Policy for names without one of their own. Off: cached answers are opt-in."""
    policies: dict[str, CachePolicy] = Field(default_factory=dict)
    """Policies by requested name: a model, adapter, alias or route. A model's policy also covers its aliases."""
    max_mb: PositiveInt = 64
    """MiB of answers per organisation in Redis. Entries that expire first are evicted first."""
    semantic_entries: PositiveInt = 10_000
    """Questions that one gateway keeps in its semantic index, all scopes together; the oldest is evicted. 2 to 14 KiB
    each."""
