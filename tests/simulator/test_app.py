from tests.simulator.harness import http

from quarterdeck.simulator import create_app


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
