"""Prompt: the newest version of a prompt and the labels that point at it, as a prompt file in Git has them."""

from typing import Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.object import FIXED_NAME, Column, Resource
from quarterdeck.kube.shape import CAMEL, Rule, StatusShape, with_rules
from quarterdeck.settings import prompts
from quarterdeck.settings.prompts import Label, PromptName, Teams, VariableName

MAX_PROMPT_NAME = 128
LONG_NAME = "metadata.name is longer than 128 characters: set spec.name"


class PromptMessageSpec(prompts.PromptMessage):
    """A message of a chat prompt: a role and its content, or a placeholder for messages of the request."""

    model_config = ConfigDict(
        **CAMEL,
        json_schema_extra=with_rules(
            Rule("has(self.role) != has(self.placeholder)", "a message has a role and content, or is a placeholder")
        ),
    )


class PromptVariableSpec(prompts.PromptVariable):
    """A variable of a prompt's templates."""

    model_config = CAMEL


class PromptExampleSpec(prompts.PromptExample):
    """An exchange that shows the model what is wanted (few-shot)."""

    model_config = CAMEL


class PromptSpec(prompts.PromptSpec):
    """A version of a prompt, and the labels that point at it."""

    model_config = ConfigDict(
        **CAMEL,
        json_schema_extra=with_rules(
            FIXED_NAME,
            Rule("has(self.text) != has(self.messages)", "a prompt has either text or messages"),
            Rule(
                "!has(self.text) || !(has(self.tools) || (has(self.examples) && self.examples.size() > 0))",
                "examples and tools belong to a prompt with messages",
            ),
        ),
    )

    messages: Annotated[list[PromptMessageSpec], Field(min_length=1, max_length=200)] | None = None  # type: ignore[assignment] # narrower
    """The messages of a chat prompt."""
    examples: list[PromptExampleSpec] = Field(default=[], max_length=100)  # type: ignore[assignment] # narrower
    """Exchanges that follow a chat prompt's system messages."""
    variables: dict[VariableName, PromptVariableSpec] = Field(default={}, max_length=100)  # type: ignore[assignment] # narrower
    """Variables by name. A name that a template uses and that is not listed is a string; each request must give it,
    unless templates read it only with `default` or test it with `is defined`."""

    name: PromptName | None = None
    """Name of the prompt: `support/answer`. Unset: the object's name."""
    description: str | None = Field(default=None, max_length=1000)
    """For people. Unset: it is left as it is."""
    teams: Teams | None = None
    """Teams that may use the prompt. Unset: it is left as it is."""
    labels: tuple[Label, ...] = Field(default=(), max_length=20)
    """Labels that point at this version, such as `production`."""


class PromptStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, Synced, and Ready as their summary."""
    version: int = 0
    """Version that holds the content."""
    digest: str = ""
    """SHA-256 of the content."""
    message: str = ""
    """The state in a sentence."""


class Prompt(Resource):
    """A prompt, kept in Git and mirrored into the platform's prompts. Deleting the object archives the prompt: requests
    that name it are still answered, until it is deleted at `/v1/prompts`."""

    kind: ClassVar[str] = "Prompt"
    plural: ClassVar[str] = "prompts"
    short_names: ClassVar[tuple[str, ...]] = ("pr",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Version", ".status.version", "integer"),
        Column("Labels", ".spec.labels"),
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Message", ".status.message", priority=1),
    )

    schema_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.spec.name) || self.metadata.name.size() <= 128", LONG_NAME),
    )

    spec: PromptSpec
    """A version of the prompt, and the labels that point at it."""
    status: PromptStatus = PromptStatus()
    """What is."""

    @model_validator(mode="after")
    def _has_a_short_name(self) -> Self:
        if len(self.prompt_name) > MAX_PROMPT_NAME:
            raise ValueError(LONG_NAME)
        return self

    @property
    def prompt_name(self) -> str:
        """Name of the prompt."""
        return self.spec.name or self.metadata.name

    def version(self) -> prompts.PromptSpec:
        """The version as `/v1/prompts` takes it: its `content()` and `digest`."""
        own = {"name", "description", "teams", "labels"}
        shown = self.spec.model_dump(mode="json", by_alias=False, exclude_unset=True, exclude=own)
        return prompts.PromptSpec.model_validate(shown)
