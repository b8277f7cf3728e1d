"""Prompt: the newest version of a prompt and the labels that point at it, as a prompt file in Git has them."""

from typing import Any, ClassVar

from pydantic import Field

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.object import Column, Resource
from quarterdeck.kube.shape import CAMEL, StatusShape
from quarterdeck.settings import prompts
from quarterdeck.settings.prompts import Label, PromptName, Teams


class PromptMessageSpec(prompts.PromptMessage):
    """A message of a chat prompt: a role and its content, or a placeholder for messages of the request."""

    model_config = CAMEL


class PromptVariableSpec(prompts.PromptVariable):
    """A variable of a prompt's templates."""

    model_config = CAMEL


class PromptExampleSpec(prompts.PromptExample):
    """An exchange that shows the model what is wanted (few-shot)."""

    model_config = CAMEL


class PromptSpec(prompts.PromptSpec):
    """A version of a prompt, and the labels that point at it."""

    model_config = CAMEL

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
    """A prompt, kept in Git and mirrored into the platform's prompts."""

    kind: ClassVar[str] = "Prompt"
    plural: ClassVar[str] = "prompts"
    short_names: ClassVar[tuple[str, ...]] = ("pr",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Version", ".status.version", "integer"),
        Column("Labels", ".spec.labels"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: PromptSpec
    status: PromptStatus = PromptStatus()

    @property
    def prompt_name(self) -> str:
        """Name of the prompt."""
        return self.spec.name or self.metadata.name

    def version_content(self) -> dict[str, Any]:
        """The content of the version, as `/v1/prompts` takes it."""
        own = {"name", "description", "teams", "labels"}
        shown = self.spec.model_dump(mode="json", by_alias=False, exclude_unset=True, exclude=own)
        return prompts.PromptSpec.model_validate(shown).content()
