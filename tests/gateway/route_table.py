"""All routes of a gateway."""

from fastapi.routing import APIRoute
from starlette.routing import Route
from tests.gateway.fakes import parts

from quarterdeck.gateway.app import create_api, create_app

PARAMETERS = {"name:path": "chat", "key_id": "key_user", "team": "default", "org": "default", "kind": "completions"}
PARAMETERS |= {
    "prompt": "greet",
    "version": "1",
    "label": "production",
    "request_id": "req_1",
    "score_id": "score_1",
    "link": "plink_1",
}
PARAMETERS |= {"webhook_id": "whk_1", "response_id": "resp_1", "conversation_id": "conv_1", "item_id": "msg_1"}
PARAMETERS |= {"completion_id": "chatcmpl-1", "file_id": "file-x", "upload_id": "upload_x", "rest:path": "speech"}
PARAMETERS |= {"batch_id": "batch_1"}


def every_route() -> list[tuple[str, str]]:
    """(method, path) of each, with values for path parameters."""
    made, found = parts(), []
    for route in create_api(made, create_app(made).registry).routes:
        assert isinstance(route, Route | APIRoute), f"{route}: a kind of route that this walk does not know"
        path = route.path
        for parameter, value in PARAMETERS.items():
            path = path.replace(f"{{{parameter}}}", value)
        assert "{" not in path, f"{path}: fill in its parameter"
        found += [(method, path) for method in sorted(route.methods or ())]
    return found
