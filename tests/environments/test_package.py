"""The package, built as a wheel and installed without a checkout, as by `pipx install 'quarterdeck[local]'`.

Nothing but the package registries is reached. The real engine is not started here (tests/e2e does that); its
environment is made as `quarterdeck setup engine` makes it, or found in the cache.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from tests.cli.running import free_ports, running

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
FROM_CHECKOUT = ("pyproject.toml", "environments/make.py", "environments/engine.txt", "observability/rules/alerts.yaml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of what git tracks and of new files, so that a build folder of the checkout does not matter."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(lambda name: name and (ROOT / name).is_file(), names):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."]
    subprocess.run(pip, cwd=folder / "source", check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_file_of_the_source_and_what_setup_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    files = [path for path in (source / "quarterdeck").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(source)) for path in files} <= names
    assert {f"quarterdeck/checkout_files/{name}" for name in FROM_CHECKOUT} <= names


def interpreters() -> Iterator[object]:
    for version in ("3.11", "3.12", "3.13"):
        pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        found = str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")
        skip = pytest.mark.skipif(found is None, reason=f"NOT TESTED: this machine has no Python {version}")
        yield pytest.param(found, id=version, marks=skip)


@pytest.fixture(scope="module", params=interpreters())
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a new environment in which pip has installed the package."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([request.param, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[local]"]
    subprocess.run(pip, check=True, cwd=folder)
    return folder / "bin"


def environ(folder: Path, **more: str) -> dict[str, str]:
    """A user's: no redis-server on PATH, no checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "PYTHON"))}
    ports = dict(zip(("PORT", "WORKER_PORT", "ENGINE_PORT"), map(str, free_ports(3)), strict=True))
    return {
        **kept,
        "PATH": "/usr/bin:/bin",
        "QUARTERDECK_STATE": str(folder / "state"),
        **{f"QUARTERDECK_{name}": port for name, port in ports.items()},
        **more,
    }


def test_an_installed_package_serves_the_simulated_engine(installed: Path, tmp_path: Path) -> None:
    variables = environ(tmp_path)
    command = [str(installed / "quarterdeck"), "up", "--engine", "sim"]
    with running(command, variables, patience=120) as up:
        up.until("Chat is ready")
        url = up.until("Base URL").split()[-1]
        key = up.until("API key").split()[2]
        with OpenAI(base_url=url, api_key=key) as client:
            answer = client.chat.completions.create(
                model="smollm2-135m-instruct", messages=[{"role": "user", "content": "Hello"}]
            )
        assert answer.choices[0].message.content
        listed = subprocess.run(
            [str(installed / "quarterdeck"), "models"], env=variables, check=True, capture_output=True, text=True
        )
        assert "smollm2-135m-instruct" in listed.stdout
        assert up.interrupt() == 0


def test_setup_engine_makes_an_environment_that_has_this_package(installed: Path, tmp_path: Path) -> None:
    version = subprocess.run(
        [str(installed / "python"), "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    ).stdout.strip()
    if version != str((3, 11)):
        pytest.skip("NOT TESTED: 4 GB for each version; that of 3.11 is in the cache")
    variables = environ(tmp_path)
    command = str(installed / "quarterdeck")
    made = subprocess.run([command, "setup", "engine"], env=variables, check=True, capture_output=True, text=True)
    python = Path(made.stdout.splitlines()[-1].removeprefix("engine: "))
    try:
        code = (
            "import quarterdeck.engine, importlib.metadata as m;"
            "print(quarterdeck.__path__[0], m.version('quarterdeck'))"
        )
        shown = subprocess.run([str(python), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
        package, number = shown.stdout.split()
        assert Path(package).resolve() == next((installed.parent / "lib").glob("python*/site-packages/quarterdeck"))
        assert number
    finally:
        shutil.rmtree(python.parents[3])  # links of this installation; the environment stays in the cache


def test_setup_without_what_it_needs_says_so(installed: Path, tmp_path: Path) -> None:
    up = subprocess.run(
        [str(installed / "quarterdeck"), "up"],
        env=environ(tmp_path, QUARTERDECK_CACHE=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
    )
    assert up.returncode == 1
    assert "run `quarterdeck setup engine`" in up.stderr


def test_dashboards_are_copied(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "quarterdeck"), "setup", "dashboards", str(tmp_path / "grafana")]
    subprocess.run(command, env=environ(tmp_path), check=True, capture_output=True)
    assert (tmp_path / "grafana" / "dashboards" / "overview.json").exists()
    assert (tmp_path / "grafana" / "rules" / "alerts.yaml").exists()
