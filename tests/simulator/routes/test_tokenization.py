from tests.simulator.harness import http, user

from quarterdeck.simulator import create_app


async def test_tokenize_and_detokenize() -> None:
    async with http(create_app()) as client:
        body = {"prompt": "Hoist the sails!", "return_token_strs": True}
        tokens = (await client.post("/tokenize", json=body)).json()
        text = (await client.post("/detokenize", json={"tokens": tokens["tokens"]})).json()
        half = {"messages": [*user("hi"), {"role": "assistant", "content": "One"}]}
        open_ended = half | {"continue_final_message": True, "add_generation_prompt": False}
        counts = [(await client.post("/tokenize", json=each)).json()["count"] for each in (half, open_ended)]
        neither = await client.post("/tokenize", json={})
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert text == {"prompt": "Hoist the sails!"}
    assert counts[1] < counts[0]
    assert neither.status_code == 400
