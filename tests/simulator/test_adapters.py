import shutil
from pathlib import Path

import httpx2
import pytest
from tests.engine.lora import write_adapter
from tests.simulator.harness import http

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.app import App
from quarterdeck.simulator.engine import Engine


async def test_adapters_are_refused_as_vllm_refuses_them() -> None:
    async with http(create_app()) as client:
        load = {"lora_name": "poet", "lora_path": "/p"}
        first = await client.post("/v1/load_lora_adapter", json=load)
        again = await client.post("/v1/load_lora_adapter", json=load)
        inplace = await client.post("/v1/load_lora_adapter", json=load | {"load_inplace": True})
        without = await client.post("/v1/load_lora_adapter", json={"lora_name": "x"})
        gone = await client.post("/v1/unload_lora_adapter", json={"lora_name": "nobody"})
    assert first.text == "Success: LoRA adapter 'poet' added successfully."
    assert (again.status_code, again.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert (inplace.status_code, without.status_code, gone.status_code) == (200, 400, 404)


async def test_the_files_that_were_loaded_generate_the_text_and_the_cache_knows_the_name_only(tmp_path: Path) -> None:
    write_adapter(tmp_path, b"one")
    app = create_app(SimulatorConfig(mode="random", enable_kvcache=True))

    async def ask(client: httpx2.AsyncClient) -> tuple[str, int]:
        chat = {"model": "poet", "messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 8}
        said = (await client.post("/v1/chat/completions", json=chat)).json()
        return said["choices"][0]["message"]["content"], said["usage"]["prompt_tokens_details"]["cached_tokens"]

    async with http(app) as client:
        load = {"lora_name": "poet", "lora_path": str(tmp_path)}
        await client.post("/v1/load_lora_adapter", json=load)
        first, _ = await ask(client)
        write_adapter(tmp_path, b"two")
        assert (await ask(client))[0] == first
        await client.post("/v1/unload_lora_adapter", json={"lora_name": "poet"})
        await client.post("/v1/load_lora_adapter", json=load)
        replaced, cached = await ask(client)
        assert replaced != first
        assert cached > 0
        await client.post("/v1/load_lora_adapter", json=load | {"load_inplace": True})
        write_adapter(tmp_path, b"three")
        assert (await ask(client))[0] not in (first, replaced)


async def test_without_its_folder_an_adapter_that_is_read_again_ends_the_engine(tmp_path: Path) -> None:
    ended: list[int] = []
    folder = write_adapter(tmp_path / "poet")
    app = App(Engine(SimulatorConfig(), exit_process=ended.append))
    async with http(app) as client:
        for name, inplace in (("once", False), ("again", True)):
            load = {"lora_name": name, "lora_path": str(folder), "load_inplace": inplace}
            await client.post("/v1/load_lora_adapter", json=load)
        shutil.rmtree(folder)
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        assert (await client.post("/v1/chat/completions", json=chat | {"model": "once"})).status_code == 200
        assert ended == []
        await client.post("/v1/chat/completions", json=chat | {"model": "again"})
        assert ended == [1]


@pytest.mark.parametrize(
    ("folder", "status", "words"),
    [
        ("fail-missing", 404, "No adapter found for /a/fail-missing"),
        ("fail-rank", 500, "'LoRA rank 64 is greater than max_lora_rank 16.'"),
        ("fail-base", 500, "The size of tensor a (576) must match"),
        ("fail-damaged", 500, "Error while deserializing header"),
    ],
)
async def test_an_adapter_that_can_not_be_loaded_is_refused_as_vllm_refuses_it(
    folder: str, status: int, words: str
) -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": f"/a/{folder}"})
        models = (await client.get("/v1/models")).json()["data"]
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert [each["id"] for each in models] == ["simulated"]


async def test_a_rank_above_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 32}')
    load = {"lora_name": "a", "lora_path": str(tmp_path)}
    async with http(create_app(SimulatorConfig(max_lora_rank=16))) as client:
        answer = await client.post("/v1/load_lora_adapter", json=load)
        assert "LoRA rank 32 is greater than max_lora_rank 16." in answer.json()["error"]["message"]
    async with http(create_app(SimulatorConfig(max_lora_rank=32))) as client:
        assert (await client.post("/v1/load_lora_adapter", json=load)).status_code == 200


async def test_an_adapter_may_be_loaded_and_fail(tmp_path: Path) -> None:
    async with http(create_app()) as client:
        await client.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/a/fail-probe"})
        chat = {"model": "a", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 500
        assert (await client.post("/v1/chat/completions", json=chat | {"model": "simulated"})).status_code == 200
