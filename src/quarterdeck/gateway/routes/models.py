"""`/v1/models`: the models that a key may use, including adapters and aliases."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import NotFoundError
from quarterdeck.gateway import catalogue
from quarterdeck.gateway.dependencies import Parts, PartsDep, PrincipalDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.inference.routing.directory import Directory, ServedModel

router = APIRouter(prefix="/v1/models")


@router.get("")
async def list_models(parts: PartsDep, principal: PrincipalDep) -> Response:
    """List the models that the key may use."""
    return json_response({"object": "list", "data": list(_allowed(parts, principal).values())})


@router.get("/{name:path}")
async def retrieve_model(name: str, parts: PartsDep, principal: PrincipalDep) -> Response:
    """Retrieve a model. Its id may contain slashes, as Hugging Face's do."""
    model = _allowed(parts, principal).get(name)
    if model is None:
        raise NotFoundError(
            f"The model '{name}' does not exist or you do not have access to it.", param="model", code="model_not_found"
        )
    return json_response(model)


def _allowed(parts: Parts, principal: Principal) -> dict[str, dict[str, Any]]:
    directory, endpoints = parts.directory.current, parts.endpoints.all()
    now = asyncio.get_running_loop().time()
    found = {}
    for name, served in catalogue.names(directory, endpoints).items():
        if catalogue.is_allowed(directory, name, served, principal) and "@" not in name:
            available = catalogue.best_availability(directory, name, served, endpoints, now, parts.endpoints.status)
            shown = {"state": available.state, **available.more()}
            if len(shown) > 1 and available.detail:
                shown["detail"] = available.detail
            found[name] = {**_model(name, served, directory, parts.started), **shown}
    return found


def _model(name: str, served: ServedModel, directory: Directory, created: int) -> dict[str, Any]:
    """OpenAI's object, and what vLLM adds to it: `root` (what an alias stands for), `parent` (an adapter's model).
    `serves`: operations of audio and images."""
    config = next((model for model in directory.config.models if model.name == served.model), None)
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "quarterdeck",
        "root": served.public_name,
        "parent": served.model if served.name != served.model else None,
        "max_model_len": config.engine.context if config and config.engine else None,
        **({"serves": sorted(served.serves)} if served.serves else {}),
    }
