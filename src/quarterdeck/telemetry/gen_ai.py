"""Names of OpenTelemetry's gen_ai semantic conventions, which spans and metrics share."""

from collections.abc import Mapping

PROVIDER = "quarterdeck"
"""gen_ai.provider.name: the conventions have no value for vLLM or for a self-hosted platform."""
OPERATIONS: Mapping[str, str] = {"completions": "text_completion", "tool": "execute_tool"}
"""gen_ai.operation.name of our operations that the conventions name otherwise."""
