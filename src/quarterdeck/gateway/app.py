"""The gateway as an ASGI application, made of parts that are handed in."""

from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from quarterdeck.errors import APIError
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http import responses
from quarterdeck.gateway.http.lifecycle import HotPath
from quarterdeck.gateway.http.middleware import DefaultDeny, Door, WholeBody
from quarterdeck.gateway.routes import (
    admin_cache,
    admin_keys,
    admin_organizations,
    admin_teams,
    admin_usage,
    health,
    inference,
    models,
)
from quarterdeck.net.asgi import Receive, Scope, Send


def create_app(parts: Parts) -> HotPath:
    """The hot path in front, FastAPI behind it."""
    return HotPath(
        create_api(parts),
        config=parts.directory.select(lambda directory: directory.config.gateway),
        pipeline=parts.pipeline,
        authenticator=parts.authenticator,
        access=parts.access,
        callers=parts.callers,
    )


def create_api(parts: Parts) -> FastAPI:
    """All routes. What they answer is JSON that we encode ourselves, so no response models."""
    api = FastAPI(
        title="Quarterdeck",
        # A schema would tell a stranger nothing (it is behind the key as well), and nobody serves a page here.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would be made of the Host header; a path is right or it is not there.
        redirect_slashes=False,
        middleware=[
            Middleware(Door, access=parts.access),
            Middleware(DefaultDeny, authenticator=parts.authenticator),
            Middleware(WholeBody),
        ],
    )
    api.state.parts = parts
    for module in (health, models, admin_keys, admin_teams, admin_organizations, admin_usage, admin_cache):
        # Not include_router: what that leaves in the table can't be walked, and a test walks every route for its key.
        api.router.routes.extend(module.router.routes)
    api.router.routes.extend(inference.routes(_taken_before))
    api.add_exception_handler(APIError, _on_api_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(RequestValidationError, _on_validation_error)
    return api


class _TakenBefore:
    """Answers for the model routes where FastAPI is reached without the hot path: never, in a gateway."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError(f"{scope['path']} was not taken by the hot path")


_taken_before = _TakenBefore()


async def _on_api_error(request: Request, error: Exception) -> Response:
    return responses.error_response(cast(APIError, error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    return responses.error_response(responses.from_http(cast(HTTPException, error)))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    return responses.error_response(responses.from_validation(cast(RequestValidationError, error)))
