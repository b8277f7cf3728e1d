import shutil
from pathlib import Path

import httpx2
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
