"""The options that name a platform elsewhere."""

from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli.__main__ import cli

KEY = "sk-qd-" + "a" * 40


def run(*arguments: str, input: str | None = None) -> tuple[Result, list[httpx.Request]]:
    """Run a command against a platform that lists no keys."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"object": "list", "data": [], "has_more": False})

    return CliRunner().invoke(cli, arguments, obj=httpx.MockTransport(answer), input=input), seen


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return str(tmp_path / "key")


@pytest.mark.parametrize("url", ["https://llm.example.com", "https://llm.example.com/v1/"])
def test_a_platform_at_a_url_is_asked_with_the_key_of_the_file(url: str, key_file: str) -> None:
    done, [request] = run("--url", url, "--key-file", key_file, "keys", "list")
    assert done.exit_code == 0, done.output
    assert str(request.url).startswith("https://llm.example.com/admin/keys")
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_the_key_can_come_from_standard_input() -> None:
    done, [request] = run("--url", "http://gateway", "--key-file", "-", "keys", "list", input=f"{KEY}\n")
    assert done.exit_code == 0, done.output
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://gateway", "keys", "list"], "needs a key: --key, --key-file"),
        (["--url", "gateway", "keys", "list"], "--url must be a URL"),
        (["--url", "http://gateway", "--context", "prod", "keys", "list"], "do not go with it"),
        (["--key-file", "/tmp/key", "--key", "sk-x", "keys", "list"], "exclude each other"),
        (["--context", "prod", "up"], "works on this machine only"),
        (["--context", "prod", "env"], "use --url"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], message: str) -> None:
    done, seen = run(*arguments)
    assert (done.exit_code, message in done.stderr, seen) == (2, True, []), done.output


@pytest.mark.parametrize("text", ["", "two words", "schlüssel"])
def test_a_file_that_holds_no_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    done, seen = run("--url", "http://gateway", "--key-file", str(tmp_path / "key"), "keys", "list")
    assert (done.exit_code, seen) == (1, [])
    assert "does not hold one key" in done.stderr


def test_a_cluster_without_kubectl_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done, _ = run("--context", "prod", "keys", "list")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: kubectl is not on PATH")


def test_the_doctor_of_a_cluster_without_kubectl_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done, _ = run("doctor", "--cluster")
    assert done.exit_code == 1
    assert done.stdout.startswith("missing Kubernetes API: kubectl is not on PATH")
