"""Prompts of a Langfuse project. The project itself is named by the environment's LANGFUSE_… variables."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PromptMode = Literal["off", "pull", "push", "both"]


class LangfuseConfig(BaseModel):
    """Synchronisation of prompts with the Langfuse project that the environment names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompts: PromptMode = "off"
    """Which side is the source of truth. pull: Langfuse. push: this platform. both: of each prompt, the side where it
    was first created. off: no synchronisation.

    off: the project may be another team's, and a label that is moved there would change what is served here.
    """
    org: str = Field(default="default", min_length=1, max_length=64)
    """The organisation whose prompts are those of the project. A project has one set of names, as an organisation
    has."""
    interval_seconds: float = Field(default=60, ge=5, le=86_400)
    """Between two synchronisations. 60: one request per hundred prompts each time, and a label that is moved at
    Langfuse takes effect within a minute, as with Langfuse's own SDK."""
