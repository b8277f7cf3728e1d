from pathlib import Path

import pytest
from tests.cli.admin_api import AdminAPI


@pytest.fixture
def admin(tmp_path: Path) -> AdminAPI:
    return AdminAPI(tmp_path)


@pytest.fixture(autouse=True)
def no_platform_of_the_developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts and variables of the machine that runs the tests name no platform."""
    monkeypatch.setenv("QUARTERDECK_CONTEXTS", str(tmp_path / "contexts.toml"))
    for name in ("URL", "KEY", "CONTEXT"):
        monkeypatch.delenv(f"QUARTERDECK_{name}", raising=False)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
