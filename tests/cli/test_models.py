"""`quarterdeck models`: through the admin API, and in the files of a platform that does not run."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.cli.admin_api import AdminAPI

from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.models import _detail

MODEL = {
    "id": "qwen",
    "object": "model",
    "managed_by": "api",
    "aliases": [],
    "stopped": False,
    "source": "Qwen/Qwen2.5-0.5B-Instruct",
    "task": "generate",
    "adapters": [],
    "state": "ready",
    "replicas": 1,
    "max_replicas": 1,
    "memory_bytes": 1_500_000_000,
    "kv_cache_tokens": 16_000,
    "kv_cache_usage": 0.25,
    "tokens_per_second": 20.5,
    "folder": "/cache/qwen",
}


def test_an_adapter_shows_its_model_and_why_it_is_missing() -> None:
    pirate = {"id": "pirate", "root": "pirate", "parent": "chat"}
    assert _detail(pirate, {}) == "adapter of chat"
    assert _detail(pirate, {"pirate": {"detail": "its folder is empty"}}) == "adapter of chat: its folder is empty"
    assert _detail({"id": "gpt", "root": "chat", "parent": ""}, {}) == "alias of chat"


@pytest.fixture
def api(admin: AdminAPI) -> AdminAPI:
    admin.answers["GET", "/healthz"] = {}
    admin.answers["GET", "/admin/models/qwen"] = MODEL
    return admin


def test_a_model_is_added_and_followed_until_it_is_ready(api: AdminAPI) -> None:
    api.answers["POST", "/admin/models"] = {**MODEL, "state": "unavailable"}
    done = api.run(
        *("models", "add", "Qwen/Qwen2.5-0.5B-Instruct", "--name", "qwen", "--quantization", "bitsandbytes"),
        *("--context", "2048", "--alias", "q", "--arg", "gpu_memory_utilization=0.5", "--arg", "kv_cache_dtype=fp8"),
    )
    assert done.exit_code == 0, done.output
    assert "added qwen" in done.output and "qwen is ready after" in done.output
    ((_, _, body),) = [each for each in api.requests if each[0] == "POST"]
    assert body == {
        "source": "Qwen/Qwen2.5-0.5B-Instruct",
        "name": "qwen",
        "quantization": "bitsandbytes",
        "context": 2048,
        "aliases": ["q"],
        "args": {"gpu_memory_utilization": 0.5, "kv_cache_dtype": "fp8"},
    }


def test_a_model_that_does_not_start_is_an_error_with_its_reason(api: AdminAPI) -> None:
    reason = "does not fit: needs 5.1 GB, 2.3 GB free"
    api.answers["POST", "/admin/models"] = MODEL
    api.answers["GET", "/admin/models/qwen"] = {**MODEL, "state": "unavailable", "phase": "failed", "detail": reason}
    done = api.run("models", "add", "Qwen/x", "--name", "qwen")
    assert done.exit_code == 1 and f"Error: qwen does not start: {reason}" in done.output


def test_json_is_the_object_alone(api: AdminAPI) -> None:
    api.answers["POST", "/admin/models"] = MODEL
    assert json.loads(api.run("models", "add", "Qwen/x", "--json").stdout)["id"] == "qwen"
    assert json.loads(api.run("models", "show", "qwen", "--json").stdout) == MODEL


def test_a_model_is_shown_in_words(api: AdminAPI) -> None:
    lines = dict(line.split("  ", 1) for line in api.run("models", "show", "qwen").output.splitlines())
    shown = {name: value.strip() for name, value in lines.items()}
    assert shown["memory"] == "1.5 GB" and shown["kv cache"] == "16,000 tokens, 25% used"
    assert shown["speed"].startswith("20.5 tokens/s") and shown["folder"] == "/cache/qwen"


def test_memory_on_gpus_is_told_from_that_of_the_host(api: AdminAPI) -> None:
    api.answers["GET", "/admin/models/qwen"] = {**MODEL, "gpu_memory_bytes": 20_100_000_000}
    assert "20.1 GB on GPUs, 1.5 GB on the host\n" in api.run("models", "show", "qwen").output
    api.answers["GET", "/admin/models/qwen"] = {**MODEL, "memory_bytes": None, "needed_bytes": 5_000_000_000}
    assert "5.0 GB needed\n" in api.run("models", "show", "qwen").output


def test_stop_and_start_change_one_field(api: AdminAPI) -> None:
    api.answers["POST", "/admin/models/qwen"] = {**MODEL, "stopped": True}
    api.answers["GET", "/admin/models/qwen"] = {**MODEL, "stopped": True, "replicas": 0, "phase": "stopped"}
    assert "stopped qwen" in api.run("models", "stop", "qwen").output
    assert ("POST", "/admin/models/qwen", {"stopped": True}) in api.requests
    api.answers["GET", "/admin/models/qwen"] = MODEL
    assert "ready" in api.run("models", "start", "qwen").output
    assert ("POST", "/admin/models/qwen", {"stopped": False}) in api.requests


def test_a_misspelt_name_gets_a_suggestion(api: AdminAPI) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/admin/models":
            return httpx.Response(200, json={"data": [{"id": "qwen2.5"}]})
        if request.url.path == "/healthz":
            return httpx.Response(200)
        return httpx.Response(404, json={"error": {"message": "There is no model 'qwen2'."}})

    api.handle = handle  # type: ignore[method-assign]
    done = api.run("models", "show", "qwen2")
    assert done.output.strip() == "Error: There is no model 'qwen2'. Did you mean 'qwen2.5'?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "./nowhere"), "there is no folder"),
        (("add", "nowhere"), "is no repository (org/name), no folder (./folder) and no packaged model"),
        (("add", "a/b", "--arg", "x"), "--arg must be NAME=VALUE"),
        (("add", "a/b", "--context", "3"), "--context"),
        (("update", "qwen"), "nothing to update"),
        (("pull", "/"), "is a folder already"),
    ],
)
def test_bad_words_are_refused_in_a_line(api: AdminAPI, words: tuple[str, ...], message: str) -> None:
    if words == ("pull", "/"):
        words = ("pull", str(model_folder(Path(api.state))))
    done = api.run("models", *words)
    assert done.exit_code != 0 and message in done.output and "Traceback" not in done.output


def model_folder(parent: Path) -> Path:
    folder = parent / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


class Files:
    """The commands where no platform runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "q.yaml").write_text("models: [{name: own, engine: {source: 'packaged:smollm2-135m-instruct'}}]")

    def run(self, *words: str) -> Result:
        variables = {"QUARTERDECK_STATE": str(self.folder / "state"), "QUARTERDECK_CONFIG": str(self.folder / "q.yaml")}
        return CliRunner().invoke(cli, ("models", *words), env=variables)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


def test_before_its_first_start_a_platform_s_models_are_files(tmp_path: Path) -> None:
    files = Files(tmp_path)
    done = files.run("add", str(model_folder(tmp_path)))
    assert done.exit_code == 0 and "the platform is not running: changes take effect when it starts" in done.output
    found = files.json("show", "my-model")
    assert found["source"] == str(tmp_path / "my-model") and found["state"] == "not running"
    assert files.json("stop", "my-model")["stopped"] is True
    assert files.json("update", "my-model", "--context", "99")["context"] == 99
    assert (tmp_path / "state" / "models.d" / "my-model.yaml").is_file()
    assert files.json("remove", "my-model")["deleted"] is True
    assert "There is no model 'my-model'" in files.run("show", "my-model").output


def test_the_files_refuse_what_the_api_refuses(tmp_path: Path) -> None:
    files = Files(tmp_path)
    assert "managed by quarterdeck.yaml" in files.run("stop", "own").output
    assert "already" in files.run("add", "a/b", "--name", "own").output
    assert (
        "bitsandbytes requires"
        in files.run("add", "a/b", "--quantization", "bitsandbytes", "--dtype", "float32").output
    )
    assert "can be set in quarterdeck.yaml only" in files.run("add", "a/b", "--arg", "trust_remote_code=true").output
    done = files.run("show", "owm")
    assert done.exit_code == 1 and "Did you mean 'own'?" in done.output


def test_adapters_are_added_to_files(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.run("add", "Qwen/x", "--name", "chat")
    folder = tmp_path / "Pirate"
    folder.mkdir()
    assert "there is no adapter_config.json" in files.run("adapters", "add", "chat", str(folder)).output
    (folder / "adapter_config.json").write_text("{}")
    assert files.json("adapters", "add", "chat", str(folder))["id"] == "pirate"
    assert [each["id"] for each in files.json("adapters", "list", "chat")["data"]] == ["pirate"]
    assert files.json("adapters", "remove", "pirate")["deleted"] is True
