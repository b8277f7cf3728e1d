"""Checks of a version before it is stored, besides its shape: its templates, and the types of its parameters."""

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.settings.prompts import PromptSpec
from quarterdeck.templating.prompt import CompiledPrompt, SpecError


def check_version(spec: PromptSpec) -> None:
    """Raises SpecError naming the member."""
    CompiledPrompt(spec)
    given = {**spec.parameters, "response_format": spec.response_format, "tools": spec.tools}
    members = {name: value for name, value in given.items() if value is not None}
    chat = msgspec.json.encode({**members, "model": "m", "messages": []})
    completion = msgspec.json.encode({**members, "model": "m", "prompt": ""})
    try:
        requests.decode(chat, requests.ChatCompletionRequest)
    except BadRequestError as error:
        if spec.type == "text" and _is_completion(completion):  # `logprobs` has another type there
            return
        param = error.param or "parameters"
        where = param if param in PromptSpec.model_fields else f"parameters.{param}"
        raise SpecError(error.message, where) from None


def _is_completion(body: bytes) -> bool:
    try:
        requests.decode(body, requests.CompletionRequest)
    except BadRequestError:
        return False
    return True
