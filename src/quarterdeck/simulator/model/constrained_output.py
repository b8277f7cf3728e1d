"""The text of a response format or a structured output: what constrained decoding would generate. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.model.json_schemas import UnsatisfiableError, example_value
from quarterdeck.simulator.model.regex_examples import example_match
from quarterdeck.simulator.model.text_generator import sentence


def constrained_text(
    response_format: Mapping[str, Any] | None, structured_outputs: Mapping[str, Any] | None, start: int
) -> str | None:
    """Return a text that satisfies the constraint, None without one. Raises VLLMError."""
    wanted = dict(structured_outputs or {})
    response_format = response_format or {}
    if response_format.get("type") == "json_object":
        wanted["json_object"] = True
    elif response_format.get("type") == "json_schema":
        wanted["json"] = response_format["json_schema"].get("schema") or {}
    if isinstance(wanted.get("choice"), list) and wanted["choice"]:
        return str(wanted["choice"][start % len(wanted["choice"])])
    if wanted.get("regex") is not None:
        text = example_match(str(wanted["regex"]))
        if text is None:
            raise invalid_request(f"Failed to convert the regex to a grammar: {wanted['regex']}")
        return text
    if wanted.get("json") is not None:
        schema = wanted["json"]
        if isinstance(schema, str):
            try:
                schema = msgspec.json.decode(schema)
            except msgspec.DecodeError as error:
                raise invalid_request("Invalid JSON grammar specification.") from error
        return _json_of(schema, start)
    if wanted.get("json_object"):
        return msgspec.json.encode({"answer": sentence(start, 3)}).decode()
    return None


def _json_of(schema: Any, start: int) -> str:
    try:
        return msgspec.json.encode(example_value(schema, start)).decode()
    except UnsatisfiableError as error:
        raise invalid_request(f"The provided JSON schema can't be satisfied: {error}", "response_format") from error
