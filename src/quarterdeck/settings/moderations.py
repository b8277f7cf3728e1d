"""Moderations: which model judges, and how its labels are OpenAI's categories."""

from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

ModerationCategory = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]
CATEGORIES: tuple[str, ...] = get_args(ModerationCategory)


class ModerationsConfig(BaseModel):
    """How `/v1/moderations` is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """A model of `models:` or of `routes:`: a classifier that vLLM serves (`labels`), or a chat model that judges."""
    labels: tuple[ModerationCategory | Literal["none"], ...] = ()
    """Of a classifier: the category of each of its classes, in the order of its probabilities. `none`: a class that
    means nothing of the kind, such as `safe`. Classes of one category count with the largest. Empty: the model is asked
    in a chat to score each category (JSON schema, temperature 0)."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Score from which a category is true, and its input flagged. 0.5: where a classifier is undecided."""
    images: bool = False
    """Whether the judge can see: image parts are sent to it. Off: they are refused, as most models read text only."""
    max_inputs: int = Field(default=100, ge=1, le=2048)
    """Inputs of one request. 100: a judge is asked once for each."""

    @model_validator(mode="after")
    def _labels_name_a_category(self) -> Self:
        if self.labels and not any(label != "none" for label in self.labels):
            raise ValueError("`labels` names no category")
        if self.labels and self.images:
            raise ValueError("`images` is for a judge; a classifier reads text only")
        return self
