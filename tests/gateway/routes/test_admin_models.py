"""Models added, changed and removed by API, over real files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fakes import FakePipeline, config, parts
from tests.gateway.routes.admin_api import STRANGER, WORKER, ask
from tests.small_disk import SmallDisk

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.resources.models.added import AddedModels
from quarterdeck.settings.drop_in_files import DropInFiles
from quarterdeck.settings.drop_ins import load_with_drop_ins
from quarterdeck.store.database import Database

MODELS, ADAPTERS = "/admin/models", "/admin/adapters"
FILE = """
models:
  - {name: own, aliases: [first], engine: {source: 'packaged:smollm2-135m-instruct'}}
routes:
  - {name: best, targets: [{model: own, weight: 1}], fallbacks: []}
"""


def gateway(made: Parts, database: Database, folder: Path) -> RequestLifecycle:
    """A gateway whose configuration is read anew after each change, as its reloader does."""
    file = folder / "quarterdeck.yaml"
    file.write_text(FILE)
    drop_ins = folder / "models.d"
    pipeline = FakePipeline(config(FILE))
    all_parts = parts(pipeline, keys=made.keys, database=database)

    def refresh() -> None:
        pipeline.directory.replace(Directory.of(load_with_drop_ins(file, drop_ins)))

    management = replace(all_parts.models, added=AddedModels(DropInFiles(drop_ins)), refresh=refresh)
    return create_app(replace(all_parts, models=management))


@pytest.fixture
def live(made: Parts, database: Database, tmp_path: Path) -> RequestLifecycle:
    return gateway(made, database, tmp_path)


async def names(app: RequestLifecycle) -> list[str]:
    return [each["id"] for each in (await ask(app, "GET", MODELS))["data"]]


async def test_a_model_is_added_shown_changed_and_removed(live: RequestLifecycle, tmp_path: Path) -> None:
    body = {"source": "Qwen/Qwen2.5-0.5B-Instruct", "quantization": "bitsandbytes", "context": 2048}
    made = await ask(live, "POST", MODELS, body, status=201)
    assert made["id"] == "qwen2.5-0.5b-instruct" and made["managed_by"] == "api"
    assert (tmp_path / "models.d" / "qwen2.5-0.5b-instruct.yaml").is_file()
    path = f"{MODELS}/{made['id']}"
    found = await ask(live, "GET", path)
    assert (found["quantization"], found["context"], found["state"]) == ("bitsandbytes", 2048, "unavailable")
    assert found["detail"].endswith("no engine of its own that could start it")
    changed = await ask(live, "POST", path, {"context": None, "stopped": True, "aliases": ["qwen"]})
    assert (changed["context"], changed["stopped"], changed["quantization"]) == (None, True, "bitsandbytes")
    assert (await ask(live, "GET", f"{MODELS}/qwen"))["id"] == made["id"]
    assert await names(live) == ["own", made["id"]]
    assert (await ask(live, "POST", path, {"stopped": False}))["stopped"] is False
    assert (await ask(live, "DELETE", path))["deleted"] is True
    assert await names(live) == ["own"]
    await ask(live, "DELETE", path, status=404)


async def test_a_name_with_slashes_and_colons_is_a_model_like_others(live: RequestLifecycle) -> None:
    await ask(live, "POST", MODELS, {"name": "Qwen/x:4bit", "source": "Qwen/x"}, status=201)
    assert (await ask(live, "GET", f"{MODELS}/Qwen/x:4bit"))["id"] == "Qwen/x:4bit"
    await ask(live, "DELETE", f"{MODELS}/Qwen/x:4bit")


@pytest.mark.parametrize("name", ["a/../b", "a/./b", "a//b", "a/.."])
async def test_a_name_that_its_url_would_lose_is_refused(live: RequestLifecycle, name: str) -> None:
    refused = await ask(live, "POST", MODELS, {"name": name, "source": "Qwen/x"}, status=400)
    assert "between slashes" in refused["message"]


async def test_adapters_come_and_go(live: RequestLifecycle) -> None:
    await ask(live, "POST", MODELS, {"name": "chat", "source": "Qwen/x"}, status=201)
    adapter = {"model": "chat", "name": "pirate", "source": "/adapters/pirate"}
    made = await ask(live, "POST", ADAPTERS, adapter, status=201)
    assert (made["id"], made["model"], made["managed_by"]) == ("pirate", "chat", "api")
    assert (await ask(live, "GET", f"{MODELS}/chat"))["max_adapters"] == 1
    assert (await ask(live, "POST", ADAPTERS, adapter, status=409))["code"] == "name_taken"
    listed = (await ask(live, "GET", f"{ADAPTERS}?model=chat"))["data"]
    assert [each["id"] for each in listed] == ["pirate"]
    await ask(live, "DELETE", f"{ADAPTERS}/pirate")
    assert (await ask(live, "GET", ADAPTERS))["data"] == []
    assert (await ask(live, "DELETE", f"{ADAPTERS}/pirate", status=404))["code"] == "adapter_not_found"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"name": "own", "source": "a/b"}, 409, "name_taken", "name"),
        ({"name": "first", "source": "a/b"}, 409, "name_taken", "name"),
        ({"name": "x", "aliases": ["best"], "source": "a/b"}, 409, "name_taken", "name"),
        ({"name": "x"}, 400, None, "source"),
        ({"name": "x", "source": "./here"}, 400, None, "source"),
        ({"name": "x", "source": "a/b", "quantization": "q4"}, 400, None, "quantization"),
        ({"name": "x", "source": "a/b", "env": {"LD_PRELOAD": "/x"}}, 400, None, "env"),
        ({"name": "x", "source": "a/b", "args": {"trust_remote_code": True}}, 400, None, "args"),
        ({"name": "x", "source": "/a/b", "revision": "main"}, 400, None, None),
        ({"name": "x", "source": "a/b", "quantization": "bitsandbytes", "dtype": "float32"}, 400, None, None),
        ({"name": "x", "source": "a/b", "context": 3}, 400, None, "context"),
        ({"name": "../x", "source": "a/b"}, 400, None, "name"),
    ],
    ids=str,
)
async def test_what_cannot_be_served_is_refused_and_not_saved(
    live: RequestLifecycle, tmp_path: Path, body: Any, status: int, code: str | None, param: str | None
) -> None:
    error = await ask(live, "POST", MODELS, body, status=status)
    assert error["param"] == param and (code is None or error["code"] == code), error
    assert await names(live) == ["own"]
    assert not list((tmp_path / "models.d").glob("*.yaml"))


async def test_models_of_the_file_are_changed_in_the_file(live: RequestLifecycle) -> None:
    for method, path, body in (
        ("POST", f"{MODELS}/own", {"stopped": True}),
        ("POST", f"{MODELS}/first", {"stopped": True}),
        ("DELETE", f"{MODELS}/own", None),
        ("DELETE", f"{MODELS}/first", None),
        ("POST", ADAPTERS, {"model": "own", "name": "x", "source": "/x"}),
    ):
        error = await ask(live, method, path, body, status=409)
        assert error["code"] == "managed_by_config" and "quarterdeck.yaml" in error["message"]


async def test_a_model_that_a_route_of_the_file_uses_is_not_removed(live: RequestLifecycle, tmp_path: Path) -> None:
    await ask(live, "POST", MODELS, {"name": "second", "source": "a/b"}, status=201)
    (tmp_path / "quarterdeck.yaml").write_text(FILE.replace("fallbacks: []", "fallbacks: [{model: second}]"))
    await ask(live, "POST", f"{MODELS}/second", {"context": 99})  # reads the file
    error = await ask(live, "DELETE", f"{MODELS}/second", status=409)
    assert error["code"] == "model_in_use" and "'best'" in error["message"]


async def test_a_broken_file_is_listed_and_can_be_removed(live: RequestLifecycle, tmp_path: Path) -> None:
    await ask(live, "POST", MODELS, {"name": "good", "source": "a/b"}, status=201)
    (tmp_path / "models.d" / "bad.yaml").write_text("name: [")
    await ask(live, "POST", f"{MODELS}/good", {"context": 99})
    listed = await ask(live, "GET", MODELS)
    assert len(listed["problems"]) == 1 and "models.d/bad.yaml" in listed["problems"][0]
    await ask(live, "DELETE", f"{MODELS}/bad")
    assert (await ask(live, "GET", MODELS))["problems"] == []


async def test_only_admins_of_the_platform_manage_models(live: RequestLifecycle) -> None:
    for key, code in ((WORKER, "admin_key_required"), (STRANGER, "platform_admin_required")):
        for method, path, body in (
            ("GET", MODELS, None),
            ("GET", f"{MODELS}/own", None),
            ("POST", MODELS, {"source": "a/b"}),
            ("DELETE", f"{MODELS}/own", None),
            ("GET", ADAPTERS, None),
            ("POST", "/admin/weights", {"source": "a/b"}),
        ):
            assert (await ask(live, method, path, body, key=key, status=403))["code"] == code


async def test_in_a_cluster_models_are_objects(app: RequestLifecycle) -> None:
    error = await ask(app, "POST", MODELS, {"source": "a/b"}, status=409)
    assert error["code"] == "managed_by_cluster" and "kubectl apply" in error["message"]


async def test_a_full_disk_is_a_503_and_changes_nothing(made: Parts, database: Database, tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", kilobytes=64)
    try:
        live = gateway(made, database, disk.folder)
        await ask(live, "POST", MODELS, {"name": "a", "source": "a/b"}, status=201)
        disk.fill()
        error = await ask(live, "POST", MODELS, {"name": "b", "source": "a/b"}, status=503)
        assert error["code"] == "storage_full" and "disk" in error["message"]
        assert await names(live) == ["own", "a"]
        disk.free()
        await ask(live, "POST", MODELS, {"name": "b", "source": "a/b"}, status=201)
    finally:
        disk.close()


async def test_weights_need_an_engine(live: RequestLifecycle) -> None:
    assert (await ask(live, "GET", "/admin/weights", status=409))["code"] == "no_engine"
    assert (await ask(live, "POST", "/admin/weights", {"source": "a/../b"}, status=400))["param"] == "source"
