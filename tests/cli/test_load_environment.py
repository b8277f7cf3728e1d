"""The Python environment of load tests: found, or created in a checkout."""

import sys
from pathlib import Path

import pytest

from quarterdeck.cli import load_environment
from quarterdeck.cli.load_environment import Installation, LoadEnvironmentError
from quarterdeck.settings.environment import Environment


def environment(**variables: str) -> Environment:
    return Environment.read({"HOME": "/nowhere", **variables})


def test_the_load_environment_is_the_one_named_the_one_beside_or_ours(tmp_path: Path) -> None:
    installation = checkout(tmp_path, "", has_locust=True)
    assert load_environment.find(environment(), installation) == Path(sys.executable)
    python = tmp_path / ".envs" / "load" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert load_environment.find(environment(), installation) == python
    assert load_environment.find(environment(QUARTERDECK_LOAD_PYTHON="/a/python"), installation) == Path("/a/python")


def test_where_nothing_can_make_it_the_error_says_what_to_do(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "quarterdeck"
    with pytest.raises(LoadEnvironmentError, match=r"pip install 'quarterdeck\[load\]'"):
        load_environment.ensure(environment(), Installation(Path("/p"), has_locust=False, package=package), print)


def checkout(tmp_path: Path, maker: str, *, has_locust: bool = False) -> Installation:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "make.py").write_text(maker, encoding="utf-8")
    return Installation(Path(sys.executable), has_locust=has_locust, package=tmp_path / "src" / "quarterdeck")


def test_in_a_checkout_it_is_made(tmp_path: Path) -> None:
    maker = "import pathlib, sys; p = pathlib.Path(sys.argv[2]) / '.envs' / sys.argv[3] / 'bin' / 'python'\n"
    installation = checkout(tmp_path, maker + "p.parent.mkdir(parents=True); p.touch()\n")
    shown: list[str] = []
    python = load_environment.ensure(environment(), installation, shown.append)
    assert python == tmp_path / ".envs" / "load" / "bin" / "python"
    assert len(shown) == 1


def test_where_it_cannot_be_made_the_error_has_the_reason(tmp_path: Path) -> None:
    installation = checkout(tmp_path, "import sys; print('[  1.0s] load    error: no network'); sys.exit(1)\n")
    with pytest.raises(LoadEnvironmentError, match=r"error: no network\nAlternatively, pip install"):
        load_environment.ensure(environment(), installation, lambda _: None)
