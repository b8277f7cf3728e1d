"""Which settings of content are valid, and how an operator's mistakes are reported."""

import pytest

from quarterdeck.settings.content import MAX_PATTERNS, check_pattern
from quarterdeck.settings.loading import ConfigError, parse

MODELS = "models: [{name: m, endpoints: [{url: 'http://unused'}], content: off}]\n"


def test_a_bare_off_is_off_everywhere() -> None:
    config = parse(
        MODELS + "content: {capture: off, most: off}\norg: {content: off}\nteams: {red: {content: off}}\n"
        "keys: {ci: {content: off}}\nroutes: [{name: r, targets: [{model: m}], content: off}]\n"
    )
    assert config.org is not None
    levels = [config.content.capture, config.content.most, config.org.content, config.teams["red"].content]
    levels += [config.keys["ci"].content, config.routes[0].content, config.models[0].content]
    assert levels == ["off"] * 7


@pytest.mark.parametrize("line", ["capture: on", "capture: some", "max_input_kb: 0", "retention_days: -1", "depth: 3"])
def test_a_wrong_value_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"line 3|content"):
        parse(f"{MODELS}content:\n  {line}\n")


@pytest.mark.parametrize("pattern", [r"(a", r"(?<=x)y", r"(a)\\1(?=b)", r"a*", r"(?:)", r"a{2000}", r"[a-z]{400}"])
def test_a_pattern_that_re2_does_not_take_or_that_matches_nothing_is_refused(pattern: str) -> None:
    assert check_pattern(pattern) is not None
    with pytest.raises(ConfigError, match="evil"):
        parse(f"{MODELS}content: {{redaction: {{patterns: [{{name: evil, pattern: '{pattern}'}}]}}}}\n")


def test_patterns_that_blow_up_elsewhere_are_taken_as_they_do_not_here() -> None:
    assert check_pattern(r"(a+)+$") is None
    assert check_pattern(r"(?i)\bemp-[0-9]{6}\b") is None


def test_patterns_are_few_and_their_names_unique() -> None:
    many = ", ".join(f"{{name: p{n}, pattern: 'x{n}y'}}" for n in range(MAX_PATTERNS + 1))
    twice = "{name: p, pattern: abc}, {name: p, pattern: def}"
    for patterns in (many, twice):
        with pytest.raises(ConfigError):
            parse(f"{MODELS}content: {{redaction: {{patterns: [{patterns}]}}}}\n")
