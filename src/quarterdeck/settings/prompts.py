"""What a version of a prompt consists of: the body of the API, a file in Git and, later, a custom resource.

Shape and sizes only; templates are checked by `templating/prompt`.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from quarterdeck.settings.tenancy import TeamName

MAX_BYTES = 256 * 1024
"""Of a version, as JSON: the longest prompts in use have a tenth of it."""
MODEL_PREFIX = "prompt:"
"""Of a model's name that names a prompt: `prompt:NAME@LABEL`."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
LABEL_PATTERN = r"^[a-z][a-z0-9._-]{0,35}$"

ID_PATTERN = re.compile(r"prompt_[0-9a-f]{24}")


def _is_no_id(name: str) -> str:
    """A name must not be taken for an id."""
    if ID_PATTERN.fullmatch(name):
        raise ValueError("has the form of an id")
    return name


PromptName = Annotated[str, Field(max_length=128, pattern=NAME_PATTERN), AfterValidator(_is_no_id)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
VariableName = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
VariableType = Literal["string", "number", "integer", "boolean", "array", "object", "messages"]
Content = str | list[dict[str, Any]]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Of a version."""

PARAMETERS = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "n", "stop", "seed"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
        *("reasoning_effort", "verbosity", "parallel_tool_calls", "chat_template_kwargs", "structured_outputs"),
        *("stop_token_ids", "min_tokens", "length_penalty", "ignore_eos", "include_reasoning", "best_of", "echo"),
    )
)
"""Members of a request that a version can give defaults for: those that describe the answer, not the caller or the
delivery."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PromptVariable(_Strict):
    """A variable of a prompt's templates."""

    type: VariableType = "string"
    """JSON's type of its value. `messages`: a list of chat messages, for a placeholder."""
    default: Any = None
    """The value of a request that gives none. Left out: each request must give one."""
    enum: list[Any] | None = Field(default=None, min_length=1, max_length=100)
    """The values that it may have. None: any of the type."""
    description: str = Field(default="", max_length=1000)
    """For people."""

    @property
    def is_required(self) -> bool:
        return "default" not in self.model_fields_set


class PromptMessage(_Strict):
    """A message of a chat prompt: a role and its content, or a placeholder for messages of the request."""

    role: Literal["system", "developer", "user", "assistant"] | None = None
    """Whose message it is."""
    content: Content | None = None
    """A template; or content parts, whose texts and URLs are templates."""
    name: str | None = Field(default=None, max_length=64)
    """Name of the participant, as in a request."""
    placeholder: VariableName | None = None
    """A variable of type `messages`, whose messages stand here."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "PromptMessage":
        is_message = self.role is not None and self.content is not None
        if is_message == (self.placeholder is not None) or (self.placeholder and (self.role or self.content)):
            raise ValueError("a message has a role and content, or is a placeholder")
        return self


class PromptExample(_Strict):
    """An exchange that shows the model what is wanted (few-shot). Plain text: braces mean nothing here."""

    input: str
    """What a user says."""
    output: str
    """What the assistant answers."""


class PromptSpec(_Strict):
    """A version of a prompt: text, or messages of a chat."""

    text: str | None = None
    """The template of a text prompt."""
    messages: list[PromptMessage] | None = Field(default=None, min_length=1, max_length=200)
    """The messages of a chat prompt."""
    examples: list[PromptExample] = Field(default=[], max_length=100)
    """Exchanges that follow a chat prompt's system messages."""
    variables: dict[VariableName, PromptVariable] = Field(default={}, max_length=100)
    """Variables by name. A name that a template uses and that is not listed is a string; each request must give it,
    unless templates read it only with `default` or test it with `is defined`."""
    model: str | None = Field(default=None, min_length=1, max_length=256)
    """The model of a request that names none. None: each request must name one."""
    parameters: dict[str, Any] = Field(default={}, max_length=40)
    """Defaults for the request's parameters, such as `temperature`."""
    response_format: dict[str, Any] | None = None
    """The schema of the answer, as in a request."""
    tools: list[dict[str, Any]] | None = Field(default=None, min_length=1, max_length=128)
    """Tools, as in a request."""
    tool_choice: str | dict[str, Any] | None = None
    """Which tool is called, as in a request."""

    @property
    def type(self) -> Literal["text", "chat"]:
        return "text" if self.text is not None else "chat"

    @field_validator("parameters")
    @classmethod
    def _are_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in PARAMETERS:
                raise ValueError(f"'{name[:64]}' is no parameter that a prompt can set")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "PromptSpec":
        if (self.text is None) == (self.messages is None):
            raise ValueError("a version has either `text` or `messages`")
        if self.text is not None and (self.examples or self.tools or self.tool_choice):
            raise ValueError("`examples` and `tools` belong to a prompt with `messages`")
        if self.tool_choice is not None and self.tools is None:
            raise ValueError("`tool_choice` needs `tools`")
        try:
            encoded = msgspec.json.encode(self.content())
        except (UnicodeEncodeError, RecursionError, OverflowError, TypeError):
            raise ValueError("a text has a lone surrogate, or a value is nested too deeply") from None
        if len(encoded) > MAX_BYTES:
            raise ValueError(f"a version has at most {MAX_BYTES} bytes as JSON")
        for leaf in _leaves(self.model_dump()):
            if isinstance(leaf, str) and "\0" in leaf:
                raise ValueError("a text has a NUL character")
            if isinstance(leaf, float) and not math.isfinite(leaf):
                raise ValueError("a number is not finite")
        return self

    def content(self) -> dict[str, Any]:
        """What was set, as JSON: equal for versions that mean the same."""
        return self.model_dump(mode="json", exclude_defaults=True) | self._defaults_that_are_null()

    def _defaults_that_are_null(self) -> dict[str, Any]:
        """A variable whose default is null is optional; one without a default is not."""
        if not self.variables:
            return {}
        variables = {}
        for name, variable in self.variables.items():
            variables[name] = variable.model_dump(mode="json", exclude_defaults=True)
            if not variable.is_required:
                variables[name]["default"] = variable.default
        return {"variables": variables}

    @property
    def digest(self) -> str:
        """Identifies the content: SHA-256 in hex."""
        return hashlib.sha256(msgspec.json.encode(self.content(), order="sorted")).hexdigest()


class LabelTarget(_Strict):
    """A version that a label points at."""

    version: Number
    weight: float = Field(default=1.0, ge=0, le=1_000_000)
    """Its share of the requests, relative to the others'. 0: none, and the split keeps it and its guard."""


class RolloutGuard(_Strict):
    """Bounds of a canary, compared with the first version of a split. One that is broken rolls the label back.

    A bound is broken where the confidence interval lies beyond it: a few unlucky requests are not enough.
    """

    min_requests: int = Field(default=50, ge=10, le=1_000_000)
    """Requests of each version before a bound can be broken. 50: fewer rarely tell anything."""
    max_error_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of its requests that fail."""
    max_error_rate_increase: float | None = Field(default=None, ge=0, le=1)
    """How much more of its requests fail than the first version's: 0.02 is two in a hundred."""
    max_cost_ratio: float | None = Field(default=None, gt=0, le=1000)
    """Its mean cost of a request, relative to the first version's."""
    max_latency_ratio: float | None = Field(default=None, gt=0, le=1000)
    """Its mean duration of a request, relative to the first version's."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> "RolloutGuard":
        bounds = (self.max_error_rate, self.max_error_rate_increase, self.max_cost_ratio, self.max_latency_ratio)
        if all(bound is None for bound in bounds):
            raise ValueError("a guard needs a bound, such as `max_error_rate`")
        return self


class LabelSpec(_Strict):
    """What a label points at: one version, or several by weight."""

    version: Number | None = None
    """The version. None: a split."""
    split: list[LabelTarget] | None = Field(default=None, min_length=2, max_length=10)
    """Versions by weight, the one in use first: `[{version: 3, weight: 90}, {version: 4, weight: 10}]`."""
    sticky: Literal["user", "session", "none"] = "user"
    """Whose requests stay with a version of a split: the same `safety_identifier` or `user`; the same
    `metadata.session_id`; or none's. A request without that value is drawn by itself."""
    guard: RolloutGuard | None = None
    """When a split is rolled back to its first version by itself."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "LabelSpec":
        if (self.version is None) == (self.split is None):
            raise ValueError("a label has either `version` or `split`")
        if self.split is not None and len({each.version for each in self.split}) < len(self.split):
            raise ValueError("a split names each version once")
        if self.split is not None and not any(each.weight for each in self.split):
            raise ValueError("a split needs a weight above 0")
        if self.guard is not None and self.split is None:
            raise ValueError("a `guard` needs a `split`")
        return self

    @property
    def targets(self) -> list[LabelTarget]:
        return [LabelTarget(version=self.version)] if self.version is not None else self.split or []


Teams = Annotated[list[TeamName], Field(min_length=1, max_length=100)]


def _leaves(value: Any) -> Iterator[Any]:
    """All keys and values of a JSON value that have none below them."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
        else:
            yield each
