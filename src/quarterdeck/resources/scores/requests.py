"""Request bodies that create scores, and scores as the API shows them."""

import math
import time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from quarterdeck.accounting.principal import Principal
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.store.scores import Kind, Score, Source, new_id

MAX_COMMENT = 4096
MAX_VALUE = 1e15
"""The variance of larger numbers, by which versions of a prompt are compared, would overflow."""
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class FeedbackRequest(BaseModel):
    """The body of `POST /v1/feedback` and `POST /admin/scores`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    request_id: str = Field(pattern=r"^req_[0-9a-f]{32}$")
    """The request: the `x-request-id` of its response (`_request_id` in OpenAI's SDK)."""
    name: Label = "feedback"
    """What is scored: `helpful`, `tone`. One score for each request, name and user."""
    user: str = Field(default="", max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Who scores, in your own terms."""
    thumbs: Literal["up", "down"] | None = None
    """A judgement of yes or no."""
    value: float | None = Field(default=None, strict=True, ge=-MAX_VALUE, le=MAX_VALUE)
    """A number, from -10^15 to 10^15."""
    category: Label | None = None
    """One of your own categories."""
    comment: str | None = Field(default=None, max_length=MAX_COMMENT)
    """A text. It is redacted as contents are."""

    @field_validator("value")
    @classmethod
    def _is_finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be a finite number")
        return value

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        given = [each for each in (self.thumbs, self.value, self.category) if each is not None]
        if len(given) > 1:
            raise ValueError("give only one of `thumbs`, `value` and `category`")
        if not given and not self.comment:
            raise ValueError("give one of `thumbs`, `value`, `category` and `comment`")
        return self


def score_of(body: FeedbackRequest, principal: Principal, source: Source, redactor: Redactor) -> Score:
    """The score that a body asks for, by this key."""
    kind: Kind | None = None
    value = body.value
    if body.thumbs is not None:
        kind, value = "boolean", float(body.thumbs == "up")
    elif value is not None:
        kind = "numeric"
    elif body.category is not None:
        kind = "categorical"
    now = time.time()
    return Score(
        id=new_id(),
        org=principal.org,
        team=principal.team,
        key=principal.key,
        request=body.request_id,
        name=body.name,
        user=body.user,
        source=source,
        kind=kind,
        value=value,
        category=body.category,
        comment=redactor.text(body.comment.replace("\x00", "�")) if body.comment else None,
        created=now,
        updated=now,
    )


def score_object(score: Score) -> dict[str, Any]:
    """A score as the API shows it. `status`: `pending` until its request is in the ledger."""
    return {
        "id": score.id,
        "object": "score",
        "request_id": score.request,
        "name": score.name,
        "user": score.user or None,
        "source": score.source,
        "team": score.team,
        "key": score.key,
        "thumbs": None if score.kind != "boolean" else "up" if score.value else "down",
        "value": score.value if score.kind == "numeric" else None,
        "category": score.category,
        "comment": score.comment,
        "status": "recorded" if score.is_confirmed else "pending",
        "created": int(score.created),
        "updated": int(score.updated),
    }
