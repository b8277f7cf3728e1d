"""What routes ask FastAPI for. The objects are made in `__main__` and handed to `create_app`; here they are only found.

There is no dependency that checks the key: `middleware.DefaultDeny` did before routing, for every path.
"""

from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.access import AccessLog
from quarterdeck.gateway.auth import Authenticator
from quarterdeck.gateway.callers import Callers
from quarterdeck.gateway.hot_path import Pipeline
from quarterdeck.gateway.kept_answers import KeptAnswers
from quarterdeck.gateway.middleware import PRINCIPAL
from quarterdeck.gateway.readiness import Readiness
from quarterdeck.inference.endpoints import Endpoints
from quarterdeck.inference.principal import Principal
from quarterdeck.store.keys import KeyStore
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics


class Revisions(Protocol):
    """Tells all gateways that keys of an org have changed."""

    async def bump(self, org: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the gateway's routes work with."""

    pipeline: Pipeline
    endpoints: Endpoints
    authenticator: Authenticator
    keys: KeyStore
    revisions: Revisions
    kept: KeptAnswers
    readiness: Readiness
    metrics: GatewayMetrics
    access: AccessLog
    callers: Callers
    started: int
    """Unix seconds; a model's `created`, since nobody knows a better one."""


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _principal(request: Request) -> Principal:
    principal: Principal = request.scope[PRINCIPAL]
    return principal


PartsDep = Annotated[Parts, Depends(_parts)]
PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _admin(parts: PartsDep, principal: PrincipalDep) -> Principal:
    """An admin key, read now: no admission follows that would notice that it was revoked elsewhere."""
    principal = await parts.authenticator.confirm(principal)
    if not principal.is_admin:
        raise PermissionDeniedError("This needs an admin key.", code="admin_key_required")
    return principal


AdminDep = Annotated[Principal, Depends(_admin)]
