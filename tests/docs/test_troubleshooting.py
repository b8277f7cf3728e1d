"""docs/guides/troubleshooting.md: every symptom is a message of the product."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/guides/troubleshooting.md"
SYMPTOMS = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def messages() -> str:
    """All texts of the source; the values inside f-strings are `…`."""
    found = []
    for file in [*(ROOT / "src").rglob("*.py"), ROOT / "environments/make.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_a_symptom_is_what_the_product_prints(symptom: str, messages: str) -> None:
    parts = [re.escape(part) for part in symptom.split("…")]
    assert max(map(len, parts)) >= 12, "too short to be looked for"
    assert re.search("[^\n]*".join(parts).strip(), messages), symptom


def test_there_are_symptoms_of_starts_and_of_requests() -> None:
    assert len(SYMPTOMS) >= 15
