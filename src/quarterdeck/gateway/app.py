"""The gateway as an ASGI application, made of parts that are handed in."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.routing import Route as TableRoute

from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http import error_responses
from quarterdeck.gateway.http.home_page import HomePage
from quarterdeck.gateway.http.middleware import CRUD_BODY, BufferedBody, DefaultDeny, ErrorBoundary, StorableText
from quarterdeck.gateway.http.registry import BodyPolicy, Registry, Route
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.gateway.routes import (
    admin_budgets,
    admin_cache,
    admin_keys,
    admin_models,
    admin_organizations,
    admin_requests,
    admin_scrape_targets,
    admin_teams,
    admin_usage,
    admin_webhooks,
    audio_and_images,
    batches,
    chat_completions,
    conversations,
    demand,
    feedback,
    files,
    health,
    inference,
    messages,
    models,
    moderations,
    organization_usage,
    prompt_comparison,
    prompt_labels,
    prompt_links,
    prompt_versions,
    prompts,
    request_tail,
    rerank,
    responses,
    unserved,
    uploads,
)
from quarterdeck.net.asgi import Receive, Scope, Send


def create_app(parts: Parts, *, more: Sequence[Route] = (), crud_body: BodyPolicy = CRUD_BODY) -> RequestLifecycle:
    """Registered routes, which are the model routes and `more`, and FastAPI behind them."""
    registry = Registry(
        [
            *inference.routes(parts.pipeline, parts.stored_chats, parts.chat_files),
            *messages.routes(parts.pipeline),
            *rerank.routes(parts.pipeline),
            *moderations.routes(parts.pipeline, parts.directory.select(lambda directory: directory.config)),
            *responses.routes(
                parts.responses,
                parts.background,
                parts.compaction,
                parts.response_store,
                parts.authenticator.confirm,
            ),
            *audio_and_images.routes(parts.media),
            *unserved.routes(),
            *request_tail.routes(parts.redis, parts.authenticator.confirm),
            *files.routes(parts.files, parts.authenticator.confirm, holds_bytes=parts.files.put_bytes),
            *uploads.routes(parts.uploads, parts.files, parts.authenticator.confirm, holds_bytes=parts.files.put_bytes),
            *more,
        ]
    )
    return RequestLifecycle(
        create_api(parts, registry, crud_body),
        registry,
        config=parts.directory.select(lambda directory: directory.config.gateway),
        authenticator=parts.authenticator,
        access=parts.access,
        requests_in_flight=parts.requests_in_flight,
        jobs=parts.job_credentials,
    )


def create_api(parts: Parts, registry: Registry, crud_body: BodyPolicy = CRUD_BODY) -> FastAPI:
    """All routes. Their responses are JSON that we encode ourselves, so they declare no response models.

    Registered routes are in the table so that another method is a 405 that lists theirs, and so that a walk over the
    routes finds them.
    """
    gateway = parts.directory.select(lambda directory: directory.config.gateway)
    api = FastAPI(
        title="Quarterdeck",
        # No schema: without a key it must not be readable, and no page here shows it.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would be made of the Host header.
        redirect_slashes=False,
        middleware=[
            Middleware(ErrorBoundary, access=parts.access, requests_in_flight=parts.requests_in_flight, config=gateway),
            Middleware(HomePage, report=parts.readiness.held_report, is_loopback=parts.is_loopback),
            Middleware(DefaultDeny, authenticator=parts.authenticator),
            Middleware(StorableText),
            Middleware(BufferedBody, requests_in_flight=parts.requests_in_flight, config=gateway, policy=crud_body),
        ],
    )
    api.state.parts = parts
    for module in (
        health,
        demand,
        models,
        prompts,
        prompt_versions,
        prompt_labels,
        prompt_comparison,
        prompt_links,
        admin_keys,
        admin_teams,
        admin_organizations,
        admin_usage,
        admin_cache,
        admin_scrape_targets,
        admin_requests,
        organization_usage,
        feedback,
        admin_webhooks,
        admin_budgets,
        admin_models,
        responses,
        conversations,
        chat_completions,
        batches,
        files,
        uploads,
    ):
        # Not include_router: its entries in the table can't be walked, and a test walks every route for its key.
        for found in module.router.routes:
            if isinstance(found, APIRoute) and found.methods and "GET" in found.methods:
                found.methods.add("HEAD")  # the server sends no body
        api.router.routes.extend(module.router.routes)
    for route in registry.routes:
        entry = TableRoute(route.path, _served_before)
        entry.methods = {route.method, "HEAD"} if route.method == "GET" else {route.method}
        api.router.routes.append(entry)
    error_responses.add_handlers(api)
    return api


class _ServedBefore:
    """Stands for registered routes in FastAPI's table. A class: Starlette takes it for an ASGI app."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError(f"{scope['path']} is served by the request lifecycle")


_served_before = _ServedBefore()
