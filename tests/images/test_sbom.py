"""Bills of materials: CycloneDX's own schema, and what this environment has."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from images import sbom

SCHEMAS = Path(__file__).parent / "schema"


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> Any:
    """What COLLECT finds in the environment of the tests; it is the core environment of the images, and more."""
    return json.loads(subprocess.run([sys.executable, "-c", sbom.COLLECT], capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def bill(found: Any) -> Any:
    return sbom.document("quarterdeck-gateway", "in-0123456789abcdef", found)


def test_a_bill_is_valid_by_the_schema_of_cyclonedx(bill: Any) -> None:
    names = ("spdx", "jsf-0.82")
    place = "http://cyclonedx.org/schema"
    resources = {f"{place}/{name}.SNAPSHOT.schema.json": schema(f"{name}.schema.json") for name in names}
    registry = jsonschema_rs.Registry(list(resources.items()))
    validator = jsonschema_rs.validator_for(schema("bom-1.5.schema.json"), registry=registry)
    assert [str(error) for error in validator.iter_errors(bill)] == []
    broken = {**bill, "components": [{**bill["components"][0], "type": "nonsense"}]}
    assert not validator.is_valid(broken)


def test_every_distribution_has_its_version_licence_and_place_in_the_graph(bill: Any, found: Any) -> None:
    components = {each["name"]: each for each in bill["components"] if each["purl"].startswith("pkg:pypi/")}
    assert components.keys() == found["python"].keys()
    starlette = components["starlette"]
    assert starlette["purl"] == f"pkg:pypi/starlette@{starlette['version']}"
    assert starlette["licenses"]
    needs = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert starlette["purl"] in needs[components["fastapi"]["purl"]]
    references = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert needs.keys() <= references
    assert {one for each in needs.values() for one in each} <= references


def test_equal_images_have_equal_bills(found: Any, bill: Any) -> None:
    assert sbom.document("quarterdeck-gateway", "in-0123456789abcdef", found) == bill
    assert sbom.document("quarterdeck-gateway", "in-other", found)["serialNumber"] != bill["serialNumber"]
