from tests.simulator.harness import http

from quarterdeck.simulator import create_app


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
