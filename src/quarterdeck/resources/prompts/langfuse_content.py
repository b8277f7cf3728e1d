"""A version as Langfuse has it, and a version of ours: one from the other. Pure.

Langfuse's `config` is free JSON, of which its SDK and its playground read `model` and the parameters at the top level.
We write there what a request has, under the names that a request has; and under `quarterdeck` the declarations of
variables, which Langfuse does not have.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from quarterdeck.resources.prompts.langfuse_version import LangfuseContent, is_placeholder
from quarterdeck.settings.prompts import PARAMETERS, PromptMessage, PromptSpec
from quarterdeck.templating.mustache import UnmappedError, from_mustache, to_mustache
from quarterdeck.templating.prompt import CompiledPrompt, SpecError

OWN = "quarterdeck"
"""Member of `config` for what only this platform knows."""
_REQUEST = ("model", "response_format", "tools", "tool_choice")
_MAX_NOTES = 20


def to_langfuse(spec: PromptSpec) -> LangfuseContent:
    """Raises UnmappedError."""
    config: dict[str, Any] = {**spec.parameters}
    config |= {name: value for name in _REQUEST if (value := getattr(spec, name)) is not None}
    if variables := spec.content().get("variables"):
        config[OWN] = {"variables": variables}
    if spec.text is not None:
        return LangfuseContent(_mapped(to_mustache, spec.text, "text"), config)
    messages, examples = [], _examples(spec)
    for at, message in enumerate(spec.messages or ()):
        if message.role not in ("system", "developer"):
            messages += examples
            examples = []
        messages.append(_message(message, f"messages[{at}]"))
    return LangfuseContent(messages + examples, config)


def to_quarterdeck(content: LangfuseContent) -> tuple[PromptSpec, tuple[str, ...]]:
    """A version, and what of `config` it does not take. Raises UnmappedError."""
    config = content.config if isinstance(content.config, Mapping) else {}
    notes = [f"config.{name[:60]} is not used here" for name in config if not _is_known(name)]
    if content.config and not isinstance(content.config, Mapping):
        notes.append("config is not an object and is not used here")
    own = config.get(OWN)
    declared = own.get("variables") if isinstance(own, Mapping) else None
    variables: dict[str, Any] = dict(declared) if isinstance(declared, Mapping) else {}
    given: dict[str, Any] = {name: config[name] for name in _REQUEST if config.get(name) is not None}
    if parameters := {name: value for name, value in config.items() if name in PARAMETERS and value is not None}:
        given["parameters"] = parameters
    if isinstance(content.prompt, str):
        given["text"] = _mapped(from_mustache, content.prompt, "text")
    else:
        given["messages"] = [_from_message(each, at) for at, each in enumerate(content.prompt)]
        for each in content.prompt:
            if is_placeholder(each):
                variables.setdefault(str(each.get("name")), {"type": "messages"})
    if variables:
        given["variables"] = variables
    try:
        spec = PromptSpec.model_validate(given)
        CompiledPrompt(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnmappedError(f"{where}: {first['msg']}".strip(": ")[:300]) from None
    except SpecError as error:
        raise UnmappedError(f"{error.param}: {error}"[:300]) from None
    return spec, tuple(notes[:_MAX_NOTES])


def _is_known(name: str) -> bool:
    return name in PARAMETERS or name in _REQUEST or name == OWN


def _examples(spec: PromptSpec) -> list[dict[str, Any]]:
    """As messages: Langfuse has no examples. They are plain text, so that braces in them have no equal there."""
    made = []
    for at, each in enumerate(spec.examples):
        for role, text in (("user", each.input), ("assistant", each.output)):
            if "{{" in text:
                raise UnmappedError(f"examples[{at}]: its braces would be a variable at Langfuse")
            made.append({"role": role, "content": text})
    return made


def _message(message: PromptMessage, where: str) -> dict[str, Any]:
    if message.placeholder is not None:
        return {"type": "placeholder", "name": message.placeholder}
    if message.name is not None:
        raise UnmappedError(f"{where}.name: messages at Langfuse have no name")
    if not isinstance(message.content, str):
        raise UnmappedError(f"{where}.content: messages at Langfuse are text, without content parts")
    return {"role": message.role, "content": _mapped(to_mustache, message.content, f"{where}.content")}


def _from_message(message: Mapping[str, Any], at: int) -> dict[str, Any]:
    if is_placeholder(message):
        return {"placeholder": message.get("name")}
    text = message.get("content")
    if not isinstance(text, str):
        raise UnmappedError(f"messages[{at}].content: expected text")
    return {"role": message.get("role"), "content": _mapped(from_mustache, text, f"messages[{at}].content")}


def _mapped(translate: Any, text: str, where: str) -> str:
    try:
        translated: str = translate(text)
    except UnmappedError as error:
        raise UnmappedError(f"{where}: {error}") from None
    return translated
