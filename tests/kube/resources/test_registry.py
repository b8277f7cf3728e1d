"""What an API server refuses, the classes refuse too; what it takes, they read."""

from typing import Any

import pytest
from tests.custom_resource_cases import CASES, GOOD, manifest

from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.registry import RESOURCES

KINDS = {each.kind: each for each in RESOURCES}
REFUSED = [(kind, spec, message) for kind, spec, message in CASES if message is not GOOD]


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, spec, message in CASES if message is GOOD])
def test_a_good_object_is_read(kind: str, spec: dict[str, Any]) -> None:
    KINDS[kind].parse(manifest(kind, spec))


@pytest.mark.parametrize(("kind", "spec", "message"), REFUSED)
def test_a_bad_object_is_refused_in_one_line(kind: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidObjectError) as refusal:
        KINDS[kind].parse(manifest(kind, spec))
    text = str(refusal.value)
    assert "\n" not in text
    assert "spec" in text or "metadata" in text or message in text


def test_names_of_the_kinds_are_all_different() -> None:
    names = [name for each in RESOURCES for name in (each.kind.lower(), each.plural, *each.short_names)]
    assert len(set(names)) == len(names)
