"""Every value of charts/quarterdeck is documented, in the schema, and used by a template."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from chart import values as chart_values
from chart.values import Value
from tests.helm import CHART, run, template

VALUES = chart_values.read(CHART / "values.yaml")
LEAVES = list(VALUES.leaves())


def sections(value: Value) -> Iterator[Value]:
    if value.children:
        yield value
        for child in value.children:
            yield from sections(child)


@pytest.mark.parametrize("value", LEAVES, ids=[each.name for each in LEAVES])
def test_a_value_is_described_in_sentences(value: Value) -> None:
    assert value.description.endswith("."), "add a comment `# -- …` above it"


def test_every_section_refuses_unknown_keys() -> None:
    def with_unknown(value: Value) -> dict[str, Any]:
        return {"unknown": 1} | {each.path[-1]: with_unknown(each) for each in value.children if each.children}

    finished = template(values=with_unknown(VALUES))
    # `global` takes others' keys: an umbrella chart hands in its own.
    refused = {"/".join(("", *each.path)) for each in sections(VALUES) if each.path != ("global",)}
    missing = {
        where
        for where in refused
        if f"at '{where}': additional properties 'unknown' not allowed" not in finished.stderr
    }
    assert missing == set()


def marked(value: Value, number: int) -> tuple[Any, str]:
    """A value that can be found in what is rendered, of the right form, and what to look for."""
    text = f"mark{number}x"
    kind = value.schema.get("$ref", "").rpartition("/")[2] or value.schema.get("type")
    if isinstance(value.default, int | float):
        return 70_000 + number, str(70_000 + number)
    if isinstance(value.default, dict):
        return {
            text: {text: text} if kind in ("object", "resources", "Config", "Pod", "ScalingDefaults") else text
        }, text
    if isinstance(value.default, list):
        return [text if kind == "names" else {"name": text}], text
    return text, text


OWN_SECRETS = re.compile(r".*(existingSecret|caSecret|existingClaim|digest|registry|model)")
VARIANTS: list[tuple[re.Pattern[str], dict[str, Any]]] = [
    # SQLite, a Redis and Secrets of the chart's own, one of each
    (
        re.compile(f"{OWN_SECRETS.pattern}|(gateway|worker).replicas"),
        {"gateway.autoscaling.enabled": False, "config": {"gateway": {"drain_seconds": 1}}},
    ),
    (
        re.compile(
            r".*(digest|registry|spool.existingClaim)|database.existingSecret|redis.external.existingSecret|(gateway|worker).replicas"
        ),
        {"gateway.autoscaling.enabled": False},
    ),
    # PostgreSQL, gateways scaled by the autoscaler; then by hand, with a Redis elsewhere
    (re.compile(r".*(digest|registry|spool.existingClaim)|redis.external.*"), {}),
    (re.compile(r".*registry|redis.auth.*"), {"redis.enabled": False, "gateway.autoscaling.enabled": False}),
    # images by registry
    (re.compile(r"redis.external.*|global.imageRegistry"), {}),
    (re.compile(r".*(digest|\.registry)|redis.external.*"), {}),
]
"""Values that exclude one another take turns: names that keep their default, and values that are set."""


def test_every_value_is_used_by_a_template() -> None:
    """Each value gets a mark, which has to be in what is rendered."""
    switches = {value.name for value in LEAVES if isinstance(value.default, bool)}
    marks = {value.name: marked(value, number) for number, value in enumerate(LEAVES) if value.name not in switches}
    text = ""
    for kept, forced in VARIANTS:
        values: dict[str, Any] = {}
        for value in LEAVES:
            section = values
            for key in value.path[:-1]:
                section = section.setdefault(key, {})
            mark = value.default if kept.fullmatch(value.name) else marks.get(value.name, (True, ""))[0]
            section[value.path[-1]] = forced.get(value.name, mark)
        finished = template(values=values, schema=False)
        assert finished.returncode == 0, finished.stderr
        text += finished.stdout
    assert {name for name, (_, mark) in marks.items() if mark not in text} == set()
    templates = "".join(path.read_text() for path in CHART.glob("templates/**/*") if path.is_file())
    assert {name for name in switches if not re.search(rf"\.Values\.{re.escape(name)}\b", templates)} == set()


def test_the_schema_takes_the_defaults_and_helm_lint_has_no_complaint() -> None:
    finished = run(["lint", "--strict", str(CHART)])
    assert finished.returncode == 0, finished.stdout


def test_no_template_names_a_value_that_does_not_exist() -> None:
    known = {each.name for each in LEAVES} | {each.name for each in sections(VALUES)}
    free = {each.name for each in LEAVES if isinstance(each.default, dict)}
    for path in sorted(CHART.glob("templates/**/*")):
        if path.is_file():
            for name in re.findall(r"\.Values\.([A-Za-z0-9_.]+)", path.read_text()):
                assert name in known or any(name.startswith(f"{each}.") for each in free), f"{path.name}: {name}"


def test_the_schema_is_small_enough_for_a_release() -> None:
    assert (CHART / "values.schema.json").stat().st_size < 100_000
    json.loads((CHART / "values.schema.json").read_text())
