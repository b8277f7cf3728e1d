"""How a request names a prompt: the member `prompt`, or a model called `prompt:NAME@LABEL`. Pure."""

import re
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.requests import decode_value
from quarterdeck.settings.prompts import MODEL_PREFIX

DEFAULT_LABEL = "production"
"""Used where a request names neither a version nor a label."""
LATEST = "latest"
"""A label that every prompt has: its newest version."""
MAX_VARIABLES_BYTES = 1024 * 1024
"""Of the variables as JSON: a longer text could not be part of a rendered prompt anyway."""

_MODEL = re.compile(r"prompt:(?P<name>[^@#\s]{1,128})(?:@(?P<label>[^@#\s]{1,36})|#(?P<version>[1-9][0-9]{0,8}))?")
_MEMBERS = frozenset(("id", "version", "label", "variables"))


class Reference(msgspec.Struct, frozen=True):
    """A version of a prompt, as a request names it, and its variables."""

    ref: str
    """The prompt's name or id."""
    version: int | None = None
    label: str = ""
    """Empty: `version` names the version."""
    variables: dict[str, Any] = {}  # msgspec copies it
    param: str = "prompt"
    """The request's member that names it, for errors."""


def read_reference(model: str | None, member: msgspec.Raw | None) -> Reference:
    """The reference of a request whose model is `model` and whose member `prompt` is `member`; at least one of both
    names a prompt. Raises BadRequestError."""
    given = _member(member) if member is not None else {}
    version, label = _version(given.get("version")), given.get("label")
    ref = given.get("id")
    if label is not None and (not isinstance(label, str) or not label):
        raise _invalid("prompt.label", "expected a string")
    if ref is not None and (not isinstance(ref, str) or not ref):
        raise _invalid("prompt.id", "expected a string")
    if version is not None and label is not None:
        raise BadRequestError(
            "Invalid 'prompt': it names a version and a label. Give one of both.",
            param="prompt.label",
            code="invalid_value",
        )
    param = "prompt"
    if model is not None and model.startswith(MODEL_PREFIX):
        found = _MODEL.fullmatch(model)
        if found is None:
            raise BadRequestError(
                "Invalid 'model': a prompt is named `prompt:NAME`, `prompt:NAME@LABEL` or `prompt:NAME#VERSION`.",
                param="model",
                code="invalid_value",
            )
        if ref is not None or version is not None or label is not None:
            raise BadRequestError(
                "The request names a prompt in 'model' and in 'prompt'. Give `prompt` only `variables` then.",
                param="prompt.id" if ref is not None else "prompt",
                code="invalid_value",
            )
        ref, label = found["name"], found["label"]
        version = int(found["version"]) if found["version"] else None
        param = "model"
    if ref is None:
        raise BadRequestError(
            "Missing required parameter: 'prompt.id'.", param="prompt.id", code="missing_required_parameter"
        )
    if version is None and label is None:
        label = DEFAULT_LABEL
    return Reference(ref, version, label or "", given.get("variables") or {}, param)


def _member(member: msgspec.Raw) -> dict[str, Any]:
    if memoryview(member).nbytes > MAX_VARIABLES_BYTES:
        raise BadRequestError(
            f"Invalid 'prompt': it is larger than {MAX_VARIABLES_BYTES} bytes.", param="prompt", code="prompt_too_large"
        )
    given = decode_value(member)
    if not isinstance(given, dict):
        raise _invalid("prompt", "expected an object")
    for name in given:
        if name not in _MEMBERS:
            raise BadRequestError(
                f"Unknown parameter: 'prompt.{name[:100]}'.", param=f"prompt.{name[:100]}", code="unknown_parameter"
            )
    variables = given.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise _invalid("prompt.variables", "expected an object")
    return given


def _version(value: Any) -> int | None:
    """A number, or its digits: OpenAI's prompts have versions as strings."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
        value = int(value)
    if type(value) is not int or not 1 <= value < 2**31:
        raise _invalid("prompt.version", "expected a positive integer")
    return value


def _invalid(param: str, reason: str) -> BadRequestError:
    return BadRequestError(f"Invalid type for '{param}': {reason}.", param=param, code="invalid_type")
