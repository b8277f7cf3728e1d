"""The code of docs/guides, run as it stands in the environment of its client."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.clients.conftest import Platform
from tests.clients.registry import CLIENTS, ROOT, Client, interpreter, missing

from quarterdeck.settings.config import Config

GUIDES = ROOT / "docs/guides"
BLOCK = re.compile(
    r"(?:<!-- (?P<kind>not run|run by): (?P<reason>[^>]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL
)
HTTP = Client("curl", "http.md", "core", "")
QUICK = ("http", "openai-python")
PAGES = {
    found[1]: page
    for page in sorted(GUIDES.glob("*.md"))
    if (found := re.search(r"<!-- client: (\S+) -->", page.read_text()))
}


def blocks(page: Path, language: str) -> list[str]:
    """The page's code in a language, but for blocks that say why they are not run."""
    text = page.read_text(encoding="utf-8")
    return [found["code"] for found in BLOCK.finditer(text) if found["language"] == language and not found["kind"]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in PAGES]
)
def test_a_guides_code_works_as_it_stands(name: str, platform: Platform, tmp_path: Path) -> None:
    page, client = PAGES[name], HTTP if name == "http" else CLIENTS[name]
    if (lacking := missing(client)) is not None:
        pytest.skip(lacking)
    command, _ = interpreter(client, tmp_path)
    commands = _commands(page, command, tmp_path)
    assert commands
    tools = Path(command[0]).parent if "/" in command[0] else ROOT / ".envs/core/bin"
    environ = {**os.environ, **platform.variables, "HOME": str(tmp_path), "PATH": f"{tools}:{os.environ['PATH']}"}
    environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environ.pop("XDG_CONFIG_HOME", None)
    for each in commands:
        done = subprocess.run(each, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert done.stdout.strip(), "it printed nothing"
        assert "Error code" not in done.stdout, done.stdout


def _commands(page: Path, command: object, folder: Path) -> list[list[str]]:
    """One command per block; blocks of bash share nothing either."""
    assert isinstance(command, list)
    made = [["bash", "-euo", "pipefail", "-c", code] for code in blocks(page, "bash")]
    made += [[*command, "-c", code] for code in blocks(page, "python")]
    for number, (language, suffix) in enumerate({"javascript": "mjs", "java": "java"}.items()):
        for code in blocks(page, language):
            file = folder / (f"Hello{number}.{suffix}" if suffix != "java" else "Hello.java")
            file.write_text(code)
            made.append([*command, str(file)])
    return made


def test_every_guide_is_run_or_says_why_not() -> None:
    for page in GUIDES.glob("*.md"):
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if found["language"] in ("bash", "python", "javascript", "java") and not found["kind"]:
                assert page in PAGES.values(), f"{page.name}: {found['code'][:60]}"


def test_configuration_in_guides_is_valid() -> None:
    found = [(page, code) for page in GUIDES.glob("*.md") for code in blocks(page, "yaml")]
    configurations = [
        (page, code) for page, code in found if code.startswith("models:\n  - name:") and "schema: v1" not in code
    ]
    assert len(configurations) >= 3
    for _, code in configurations:
        Config.model_validate(yaml.safe_load(code))


def test_what_a_guide_installs_is_what_its_environment_pins() -> None:
    for name, page in PAGES.items():
        if name not in CLIENTS or not CLIENTS[name].environment.startswith("client-"):
            continue
        pins = (ROOT / "environments/clients" / f"{CLIENTS[name].environment.removeprefix('client-')}.txt").read_text()
        installs = re.findall(r"^pip install (.+)$", page.read_text(), re.MULTILINE)
        assert installs, page.name
        for package in re.findall(r"[a-z][a-z0-9-]+", installs[0].split("&&")[0]):
            is_known = re.search(rf"^{package}==", pins, re.MULTILINE)
            assert is_known or package in ("openai", "numpy", "aider-install"), f"{page.name}: {package}"
