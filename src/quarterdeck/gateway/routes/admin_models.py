"""`/admin/models`, `/admin/adapters` and `/admin/weights`: models that come and go while the platform runs.

For admins of the platform: objects name folders of its machines. A model of quarterdeck.yaml can be read here and is
changed there.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway import catalogue
from quarterdeck.gateway.dependencies import AdminDep, Parts, PartsDep, require_platform_admin
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.models.added import AddedModels, not_found
from quarterdeck.resources.models.objects import adapter_object, model_object
from quarterdeck.resources.models.requests import AdapterRequest, ModelRequest, ModelUpdate, WeightsRequest
from quarterdeck.resources.tenancy.requests import given
from quarterdeck.settings.models import ModelConfig

router = APIRouter()

OF_STATUS = (
    *("reason", "progress", "seconds_left", "retry_seconds", "memory_bytes", "gpu_memory_bytes", "needed_bytes"),
    *("folder", "revision", "log", "since"),
)
"""What the engine's door says of a model, beside its state."""

Name = Annotated[str, Query(max_length=256)]


@router.post("/admin/models")
async def create_model(body: ModelRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Add a model. Its weights are downloaded and its engine is started in the background; `state` and `detail` of
    `GET` say how far it is. The model is kept until it is deleted, also over restarts."""
    require_platform_admin(admin)
    made = await parts.models.change(AddedModels.create, body, parts.config)
    return json_response(_object(parts, made), 201)


@router.get("/admin/models")
async def list_models(parts: PartsDep, admin: AdminDep) -> Response:
    """List all models: those of quarterdeck.yaml and added ones. `problems`: files of added models that can't be
    used."""
    require_platform_admin(admin)
    data = [_object(parts, model) for model in parts.config.models]
    return json_response({"object": "list", "data": data, "problems": list(parts.config.problems)})


@router.get("/admin/models/{name:path}")
async def retrieve_model(name: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Retrieve a model, with the figures of its running replicas: memory, KV cache, tokens a second."""
    require_platform_admin(admin)
    model = _find(parts, name)
    figures = await parts.models.figures.of(_endpoints(parts, model.name))
    return json_response({**_object(parts, model), **figures})


@router.post("/admin/models/{name:path}")
async def update_model(name: str, body: ModelUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Change, stop (`{"stopped": true}`) or start an added model. Fields left out keep their value, null resets one. A
    model whose start has failed is tried again."""
    require_platform_admin(admin)
    name = _find(parts, name).name
    changes = given(body)
    made = await parts.models.change(AddedModels.update, name, changes, parts.config)
    if changes.get("stopped") is False and parts.models.door is not None and _state(parts, name).get("reason"):
        await parts.models.door.retry(name)
    return json_response(_object(parts, made))


@router.delete("/admin/models/{name:path}")
async def delete_model(name: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Remove an added model: its requests in flight end, then its engine stops. Downloaded weights stay."""
    require_platform_admin(admin)
    name = next((model.name for model in parts.config.models if name in (model.name, *model.aliases)), name)
    await parts.models.change(AddedModels.remove, name, parts.config)
    return json_response({"id": name, "object": "model.deleted", "deleted": True})


@router.post("/admin/adapters")
async def create_adapter(body: AdapterRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Add a LoRA adapter to an added model. The model's engine starts anew where it had no room for adapters."""
    require_platform_admin(admin)
    name = _find(parts, body.model).name
    made = await parts.models.change(AddedModels.add_adapter, name, body.adapter, parts.config)
    return json_response(_adapter(parts, made, body.name), 201)


@router.get("/admin/adapters")
async def list_adapters(parts: PartsDep, admin: AdminDep, model: Name | None = None) -> Response:
    """List adapters, of all models or of one."""
    require_platform_admin(admin)
    found = parts.config.models if model is None else (_find(parts, model),)
    data = [_adapter(parts, each, adapter.name) for each in found if each.engine for adapter in each.engine.adapters]
    return json_response({"object": "list", "data": data})


@router.delete("/admin/adapters/{name:path}")
async def delete_adapter(name: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Remove an adapter of an added model."""
    require_platform_admin(admin)
    await parts.models.change(AddedModels.remove_adapter, name, parts.config)
    return json_response({"id": name, "object": "adapter.deleted", "deleted": True})


@router.post("/admin/weights")
async def create_download(body: WeightsRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Download a repository to the engine's machine, without serving it. A download that was interrupted is resumed."""
    require_platform_admin(admin)
    return json_response(await parts.models.require_door().download(body.source, body.revision), 202)


@router.get("/admin/weights")
async def list_downloads(parts: PartsDep, admin: AdminDep) -> Response:
    """List downloads since the engine started, newest last, with their progress."""
    require_platform_admin(admin)
    return json_response({"object": "list", "data": await parts.models.require_door().downloads()})


@router.delete("/admin/weights")
async def cancel_download(parts: PartsDep, admin: AdminDep, source: Name, revision: Name | None = None) -> Response:
    """Cancel a download. What it has is kept for the next one."""
    require_platform_admin(admin)
    return json_response(await parts.models.require_door().download(source, revision, cancel=True))


def _find(parts: Parts, name: str) -> ModelConfig:
    """By its name or an alias. Raises NotFoundError."""
    for model in parts.config.models:
        if name in (model.name, *model.aliases):
            return model
    raise not_found(name)


def _object(parts: Parts, model: ModelConfig) -> dict[str, Any]:
    return model_object(model, parts.config, _state(parts, model.name))


def _adapter(parts: Parts, model: ModelConfig, name: str) -> dict[str, Any]:
    return {**adapter_object(model, parts.config, name), **_state(parts, name)}


def _state(parts: Parts, name: str) -> dict[str, Any]:
    """Of a model or an adapter, as this gateway sees it now."""
    now = asyncio.get_running_loop().time()
    found = catalogue.availability(name, parts.endpoints.all(), now, parts.endpoints.status(name))
    status = {} if found.status is None else found.status.as_dict()
    return {
        **{field: status.get(field) for field in OF_STATUS},
        "phase": status.get("state"),
        "state": found.state,
        "detail": _detail(parts, found) or None,
        "replicas": len(parts.endpoints.serving(name)),
    }


def _detail(parts: Parts, found: catalogue.Availability) -> str:
    has_engine = parts.models.door is not None or parts.models.added is None  # in a cluster the operator starts them
    if found.state == "unavailable" and found.status is None and not has_engine:
        return f"{found.detail}; this platform has no engine of its own that could start it"
    return found.detail


def _endpoints(parts: Parts, name: str) -> list[Any]:
    return [each for each in parts.endpoints.all() if each.spec.model == name]
