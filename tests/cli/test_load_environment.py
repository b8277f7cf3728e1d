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
    installation = Installation(tmp_path / ".envs" / "core", Path("/own/python"), has_locust=True)
    assert load_environment.find(environment(), installation) == Path("/own/python")
    installation.load_python.parent.mkdir(parents=True)
    installation.load_python.touch()
    assert load_environment.find(environment(), installation) == tmp_path / ".envs" / "load" / "bin" / "python"
    assert load_environment.find(environment(QUARTERDECK_LOAD_PYTHON="/a/python"), installation) == Path("/a/python")


def test_without_locust_and_without_a_checkout_one_line_tells_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadEnvironmentError, match=r"pip install 'quarterdeck\[load\]'"):
        load_environment.ensure(environment(), Installation(tmp_path, Path("/p"), has_locust=False), print)


def checkout(tmp_path: Path, maker: str) -> Installation:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "make.py").write_text(maker, encoding="utf-8")
    return Installation(tmp_path / ".envs" / "core", Path(sys.executable), has_locust=False)


def test_in_a_checkout_it_is_made(tmp_path: Path) -> None:
    maker = "import pathlib, sys; p = pathlib.Path(__file__).parents[1] / '.envs' / sys.argv[1] / 'bin' / 'python'\n"
    installation = checkout(tmp_path, maker + "p.parent.mkdir(parents=True); p.touch()\n")
    expected: list[str] = []
    assert load_environment.ensure(environment(), installation, expected.append) == installation.load_python
    assert len(expected) == 1


def test_where_it_cannot_be_made_the_makers_reason_is_told(tmp_path: Path) -> None:
    installation = checkout(tmp_path, "import sys; print('[  1.0s] load    error: no network'); sys.exit(1)\n")
    with pytest.raises(LoadEnvironmentError, match=r"error: no network\nAlternatively, pip install"):
        load_environment.ensure(environment(), installation, lambda _: None)
