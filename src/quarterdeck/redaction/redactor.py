"""Replaces secrets and personal data in text and in JSON.

Every rule runs on RE2, whose time is proportional to the text. All rules are tried at once first (`Set`), so a text in
which there is nothing costs one pass. A rule sees decoded strings: JSON's escapes hide nothing, also not in JSON within
a string, as in the arguments of a tool call. What is encoded otherwise (base64, an archive) is not looked into.
"""

from collections import Counter
from functools import cached_property
from typing import Any

import msgspec
import re2

from quarterdeck.content import Content, choices_of
from quarterdeck.redaction.lookalikes import read_as_ascii
from quarterdeck.redaction.media import without_media
from quarterdeck.redaction.rules import PERSONAL, SECRETS, Rule
from quarterdeck.settings.content import RedactionConfig

PASSES = 4
"""A replacement can uncover what it hid: a text is redacted until nothing changes, at most so often."""
SET_MEMORY = 8 * 1024 * 1024
"""Bytes of RE2's automaton for all rules of this module together: twice what it needs."""
RULE_MEMORY = 1024 * 1024
"""Of one rule's automaton. With less than it needs, RE2 is slower, and finds the same."""
_DEEPEST = 100


def _options(memory: int) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    return options


class Redactor:
    """The rules of one configuration. They are compiled when the first text comes: that takes tens of milliseconds in
    which no other thread runs (`test_redactor` bounds what they may be made of), and a gateway that redacts nothing
    does not spend them."""

    def __init__(self, config: RedactionConfig | None = None) -> None:
        self._config = RedactionConfig() if config is None else config

    @cached_property
    def _rules(self) -> list[tuple[Rule, Any]]:
        config, options = self._config, _options(RULE_MEMORY)
        rules = [Rule(each.name, each.pattern) for each in config.patterns]
        rules += SECRETS if config.secrets else ()
        rules += PERSONAL if config.personal else ()
        return [(rule, re2.compile(rule.pattern, options)) for rule in rules if rule.name not in config.keep]

    @cached_property
    def _any(self) -> Any:
        """The rules of this module at once. Not an operator's patterns: where those need more memory than there is, a
        set would find nothing and not say so, while a single pattern is only slower."""
        found = re2.Set.SearchSet(_options(SET_MEMORY))
        for rule, _ in self._rules[len(self._config.patterns) :]:
            found.Add(rule.pattern)
        found.Compile()
        return found

    def text(self, text: str, counts: Counter[str] | None = None) -> str:
        """The text without what the rules find, which is counted by rule."""
        counts = Counter() if counts is None else counts
        if not self._rules or len(text) < 6:
            return text
        text = self._until_unchanged(text, counts)
        read = read_as_ascii(text)
        if read == text:
            return text
        inner: Counter[str] = Counter()
        found = self._until_unchanged(read, inner)
        if found == read:
            return text
        if found.count("\n") < read.count("\n"):  # something that reaches over lines, such as a private key
            counts.update(inner)
            return found
        lines = "\n".join([self._read_as_ascii(line, counts) for line in text.split("\n")])
        return self._read_as_ascii(lines, counts)  # what needs the line before it, such as a password's name

    def _until_unchanged(self, text: str, counts: Counter[str]) -> str:
        for _ in range(PASSES):
            found = self._once(text, counts)
            if found == text:
                break
            text = found
        return text

    def _read_as_ascii(self, text: str, counts: Counter[str]) -> str:
        """The text as it is, or, where rules find something in what it reads like, what is left of that."""
        read = read_as_ascii(text)
        found = self._until_unchanged(read, counts)
        return text if found == read else found

    def value(self, value: Any, counts: Counter[str], depth: int = 0) -> Any:
        """A decoded JSON value, its keys included."""
        if isinstance(value, str):
            return self._string(value, counts, depth)
        if depth > _DEEPEST:
            return "[nested too deeply]"
        if isinstance(value, list):
            return [self.value(item, counts, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self.text(str(k), counts): self._member(str(k), v, counts, depth + 1) for k, v in value.items()}
        return value

    def content(self, content: Content) -> Content:
        """The content as it may be stored: media replaced, secrets and personal data removed. A side that is no JSON
        is dropped."""
        counts: Counter[str] = Counter()
        sides = {"input": content.input, "output": content.output}
        for name, side in sides.items():
            if side is None:
                continue
            try:
                decoded = msgspec.json.decode(side)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                sides[name] = None
                continue
            decoded = without_media(choices_of(decoded) if name == "output" else decoded)
            sides[name] = msgspec.json.encode(self.value(decoded, counts))
        return msgspec.structs.replace(content, input=sides["input"], output=sides["output"], redacted=dict(counts))

    def _member(self, name: str, value: Any, counts: Counter[str], depth: int) -> Any:
        """The value of an object's member. Its name may say what it is: `"password": "…"`."""
        if not isinstance(value, str) or not 4 <= len(value) <= 1024 or "\n" in value:
            return self.value(value, counts, depth)
        found = self._string(value, counts, depth)
        if found != value or not name or len(name) > 64:
            return found
        before = f'"{name}": "'
        whole = self.text(before + value + '"', counts)
        return whole[len(before) : -1] if whole.startswith(before) and whole.endswith('"') else found

    def _string(self, text: str, counts: Counter[str], depth: int) -> str:
        if text[:1] in ("{", "[") and text[-1:] in ("}", "]") and len(text) > 2:
            try:
                nested = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
                nested = None
            if isinstance(nested, dict | list):
                inner: Counter[str] = Counter()
                found = self.value(nested, inner, depth + 1)
                if inner:
                    counts.update(inner)
                    return msgspec.json.encode(found).decode()
        return self.text(text, counts)

    def _once(self, text: str, counts: Counter[str]) -> str:
        data = text.encode("utf-8", "replace")
        own = len(self._config.patterns)
        matching = [*range(own), *(own + at for at in sorted(self._any.Match(data) or ()))]
        if not matching:
            return text
        for at in matching:
            rule, pattern = self._rules[at]
            data = _replaced(rule, pattern, data, counts)
        found = data.decode("utf-8", "replace")
        return found


def _replaced(rule: Rule, pattern: Any, data: bytes, counts: Counter[str]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for match in pattern.finditer(data):
        start, end = match.span(1) if pattern.groups else match.span()
        if start < at:
            continue
        if rule.check is None:
            ranges = [(start, end)] if end > start else []
        else:
            found = data[start:end].decode("utf-8", "replace")
            # Checked texts are ASCII, so that their characters are bytes; another's ranges would be wrong.
            ranges = [(start + a, start + b) for a, b in rule.check(found)] if found.isascii() else [(start, end)]
        for first, last in ranges:
            pieces += (data[at:first], b"[%s]" % rule.name.encode())
            at = last
            counts[rule.name] += 1
    if not pieces:
        return data
    pieces.append(data[at:])
    return b"".join(pieces)
