"""Request bodies that create and change prompts."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.prompts.reference import LATEST
from quarterdeck.resources.prompts.checks import check_version
from quarterdeck.settings.prompts import Label, LabelSpec, Number, PromptName, PromptSpec, Teams
from quarterdeck.templating.prompt import SpecError

Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Labels = Annotated[tuple[Label, ...], Field(max_length=20)]


class VersionCreate(PromptSpec):
    """The body of `POST /v1/prompts/{prompt}/versions`: the content of a version, and"""

    message: Text = ""
    """Why it is made, as a commit message."""
    labels: Labels = ()
    """Labels that point at it from now on."""
    base: Number | None = None
    """The newest version as the caller knows it: if there is a newer one, the request is a 409. None: not checked."""

    def spec(self) -> PromptSpec:
        """The content, with its templates checked. Raises BadRequestError."""
        given = self.model_dump(include=set(PromptSpec.model_fields), exclude_unset=True)
        return checked(PromptSpec.model_validate(given))


class PromptCreate(VersionCreate):
    """The body of `POST /v1/prompts`: a prompt, and the content of its first version."""

    name: PromptName
    """Unique in the organisation. Letters, digits, `.`, `_` and `-`, and `/` between parts."""
    description: Text = ""
    teams: Teams | None = None
    """Teams whose keys may use it. null: all."""
    labels: Labels = ("production",)
    """Labels of the first version. `production` is used by requests that name no version and no label."""


class PromptUpdate(BaseModel):
    """The body of `POST /v1/prompts/{prompt}`: a field that is left out keeps its value."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    description: Text | None = None
    teams: Teams | None = None
    """Teams whose keys may use it. null: all."""
    archived: bool | None = None
    """An archived prompt still serves requests, but is not listed and takes no new versions and labels."""

    def changes(self) -> dict[str, Any]:
        """What was given."""
        found = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in found.items() if value is not None or name == "teams"}


class LabelSet(LabelSpec):
    """The body of `POST /v1/prompts/{prompt}/labels/{label}`: what the label points at."""

    reason: Text = ""
    """Recorded in the prompt's events."""

    def spec(self) -> LabelSpec:
        return LabelSpec.model_validate(self.model_dump(include=set(LabelSpec.model_fields), exclude_unset=True))


class RollBack(BaseModel):
    """The body of `POST /v1/prompts/{prompt}/labels/{label}/rollback`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    version: Number | None = None
    """The version to go back to. null: of a split, its first; else the one that the label pointed at before."""
    reason: Text = ""
    """Recorded in the prompt's events."""


class RenderRequest(BaseModel):
    """The body of `POST /v1/prompts/{prompt}/render`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    version: Number | None = None
    label: Label | None = None
    """null, without `version`: `production`."""
    variables: Annotated[dict[str, Any], Field(max_length=200)] = {}


def checked(spec: PromptSpec) -> PromptSpec:
    """A version that can be used. Raises BadRequestError naming the member and the line."""
    try:
        check_version(spec)
    except SpecError as error:
        raise BadRequestError(str(error), param=error.param, code="invalid_prompt") from None
    return spec


def check_label(label: str) -> None:
    """Raises BadRequestError for the label that each prompt has by itself."""
    if label == LATEST:
        raise BadRequestError(
            f"The label '{LATEST}' always leads to the newest version and can't be set.",
            param="label",
            code="reserved_label",
        )
