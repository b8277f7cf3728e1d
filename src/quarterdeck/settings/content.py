"""Capture of inputs and outputs: what is kept of them, for how long, and what is redacted. Off by default."""

import importlib
import importlib.util
import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from quarterdeck.content import Level


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


CaptureLevel = Annotated[Level, BeforeValidator(_off)]

MAX_PATTERNS = 50
MAX_STATES = 300
"""Of one pattern. RE2's worst case is their number times the length of the text: with 300, a fifth of a second for a
text of 64 KB."""
RULE_NAME = r"^[a-z][a-z0-9_]{0,31}$"


def check_pattern(pattern: str) -> str | None:
    """Why RE2 refuses a pattern. None: it takes it, or this process is not one that redacts (the engine door reads
    this file too) and has only Python's own parser to ask."""
    try:
        if re.compile(pattern).search("") is not None:
            return "matches an empty text"
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    if importlib.util.find_spec("re2") is None:
        return None
    re2 = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1024 * 1024
    try:
        size = re2.compile(pattern, options).programsize
    except re2.error as error:
        text = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        return f"is not supported by RE2: {text}"
    if size > MAX_STATES:
        return f"has {size} states, more than {MAX_STATES}: use smaller bounds of repetitions"
    return None


class RedactionPattern(BaseModel):
    """A pattern of your own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=RULE_NAME)
    """What a match is replaced with, in brackets: `employee_id` makes `[employee_id]`."""
    pattern: str = Field(min_length=1, max_length=512)
    """A regular expression in RE2's syntax, which has no look-around and no back-references: it takes time in
    proportion to the text, whatever the pattern. `(?i)` at the start ignores case."""

    @model_validator(mode="after")
    def _compiles(self) -> "RedactionPattern":
        if (problem := check_pattern(self.pattern)) is not None:
            raise ValueError(f"pattern {self.name!r} {problem}")
        return self


class RedactionConfig(BaseModel):
    """What is replaced before content is stored or exported."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    secrets: bool = True
    """API keys, tokens, private keys, and passwords in connection strings. On: a trace is readable without them."""
    personal: bool = True
    """E-mail addresses, phone numbers, IBANs, card numbers, IP addresses and national identity numbers."""
    keep: tuple[str, ...] = ()
    """Rules that are not applied, by name: `ip_address`, `phone`, …"""
    patterns: tuple[RedactionPattern, ...] = Field(default=(), max_length=MAX_PATTERNS)
    """Patterns of your own, applied first."""

    @field_validator("patterns")
    @classmethod
    def _names_are_unique(cls, patterns: tuple[RedactionPattern, ...]) -> tuple[RedactionPattern, ...]:
        names = [each.name for each in patterns]
        if len(set(names)) < len(names):
            raise ValueError("two patterns have the same name")
        return patterns


class ContentConfig(BaseModel):
    """Which inputs and outputs are kept, for debugging and compliance."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    capture: CaptureLevel = "off"
    """Where neither organisation, team, key, route nor model says otherwise. off: nothing is kept. hashed: sizes and
    SHA-256 hashes. full: the text, redacted. Off: prompts are private by default."""
    most: CaptureLevel = "full"
    """The most that organisations, teams, keys, routes and models may ask for. `off` turns capture off everywhere."""
    max_input_kb: PositiveInt = Field(default=64, le=1024)
    """KiB kept of an input. Of a longer one the first message and the latest ones are kept. 64: some 16,000 tokens."""
    max_output_kb: PositiveInt = Field(default=64, le=1024)
    """KiB kept of an output, all choices together."""
    max_waiting: PositiveInt = 5000
    """Records that may wait for the worker before the contents of further ones are dropped; records are not. 5000: at
    most 0.6 GB of Redis' memory with the default caps, and some 20 MB with ordinary chats."""
    retention_days: PositiveFloat = 30
    """Days after which contents are deleted. Records and sums stay. An organisation may have its own."""
    redaction: RedactionConfig = RedactionConfig()
    """What is replaced before contents are stored or exported."""
