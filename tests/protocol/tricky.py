"""Texts that look like parts of an event stream: inside a JSON string they must not be taken for one."""

TRICKY = [
    "data: [DONE]",
    "data: [DONE]\n\n",
    '"usage":{"prompt_tokens":1}',
    '"usage"',
    '{"error":{"message":"no"}}',
    '"error"',
    '"finish_reason":"stop"',
    "event: error",
    "\r\n\r\n",
    "\n\n",
]
