import pytest
from tests.simulator.harness import http

from quarterdeck.simulator import create_app
from quarterdeck.simulator.app import create_app_from_options


async def test_routes_and_methods() -> None:
    async with http(create_app()) as client:
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.post("/v1/embeddings", json={})).status_code == 404, (
            "a generating engine has no embeddings"
        )
        wrong = await client.get("/v1/chat/completions")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert (await client.get("/v1/models/nobody")).status_code == 404
        assert (await client.post("/v1/chat/completions", content=b"{}")).status_code == 400


async def test_options_are_those_of_the_command_line_and_vllms_own_are_ignored() -> None:
    options = {"served_model_name": "m", "time_to_first_token": "0ms", "max-num-seqs": 3, "tensor_parallel_size": 2}
    app = create_app_from_options(options)
    assert (app.engine.config.names, app.engine.config.max_num_seqs) == (["m"], 3)
    with pytest.raises(ValueError, match="unknown option 'nonsense'"):
        create_app_from_options({"nonsense": 1})
