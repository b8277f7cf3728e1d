"""FastAPI's dependencies: the parts that `composition` built and handed to `create_app`, and the caller.

No dependency authenticates: `http/middleware.DefaultDeny` has done so before routing, for every path.
"""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant

from quarterdeck.accounting.budget_status import BudgetReader
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, PermissionDeniedError
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.job_credentials import JobCredentials
from quarterdeck.gateway.cluster.demand import Demand
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.middleware import PRINCIPAL
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.gateway.model_management import ModelManagement
from quarterdeck.gateway.org_cache import OrgCache
from quarterdeck.gateway.readiness import Readiness
from quarterdeck.gateway.routes.inference import Pipeline
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.media_calls.pipeline import MediaPipeline
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.redis import Redis
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.resources.chat_completions.input_files import ChatFiles
from quarterdeck.resources.chat_completions.service import StoredChats
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.files.uploads import Uploads
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.resources.requests.deletion import ContentDeletion
from quarterdeck.resources.responses.background import Background
from quarterdeck.resources.responses.compaction import Compaction
from quarterdeck.resources.responses.service import Responses
from quarterdeck.resources.tenancy.changes import Announcer
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.store.batches import BatchStore
from quarterdeck.store.chat_completions import ChatCompletionStore
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import DEFAULT_ORG, OrgStore
from quarterdeck.store.prompt_links import PromptLinkStore
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.request_log import RequestLog
from quarterdeck.store.responses import ResponseStore
from quarterdeck.store.scores import ScoreStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics


@dataclass(frozen=True, slots=True)
class DemandDoor:
    """What `/demand` reports, and the token that it needs."""

    counts: Demand
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the gateway's routes use."""

    directory: Live[Directory]
    pipeline: Pipeline
    media: MediaPipeline
    endpoints: Endpoints
    authenticator: Authenticator
    keys: KeyStore
    teams: TeamStore
    orgs: OrgStore
    org_deletion: OrgDeletion
    prompts: PromptStore
    prompt_changes: PromptAnnouncer
    prompt_results: PromptResults
    prompt_links: PromptLinkStore
    ledger: Ledger
    requests: RequestLog
    contents: ContentStore
    content_deletion: ContentDeletion
    scores: ScoreStore
    webhooks: WebhookStore
    outbox: WebhookOutbox
    redactor: Live[Redactor]
    redis: Redis
    changes: Announcer
    cache: OrgCache
    budgets: BudgetReader
    readiness: Readiness
    metrics: GatewayMetrics
    access: AccessLog
    requests_in_flight: RequestsInFlight
    models: ModelManagement
    responses: Responses
    response_store: ResponseStore
    background: Background
    compaction: Compaction
    conversations: ConversationStore
    stored_chats: StoredChats
    chat_files: ChatFiles
    chat_completions: ChatCompletionStore
    files: Files
    batches: BatchStore
    uploads: Uploads
    started: int
    """Unix seconds. Shown as each model's `created`, for want of a better time."""
    job_credentials: JobCredentials | None = None
    """Of requests that workers send for jobs. None: there are none."""
    is_loopback: bool = False
    """The gateway listens on loopback."""
    demand: DemandDoor | None = None
    """None: there is no operator."""
    metrics_token: str | None = None
    """What `/metrics` needs. None: nothing."""
    max_usage_rows: int = 10_000
    """Rows of one response of `/admin/usage`: 2 to 3 MB of JSON."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.directory.current.config


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _principal(request: Request) -> Principal:
    principal: Principal = request.scope[PRINCIPAL]
    return principal


PartsDep = Annotated[Parts, Depends(_parts)]
PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _member(request: Request, parts: PartsDep, principal: PrincipalDep) -> Principal:
    """Any key, read from the database: no admission follows that would notice its revocation elsewhere."""
    principal = await parts.authenticator.confirm(principal)
    _refuse_unknown(request)
    return principal


async def _admin(request: Request, parts: PartsDep, principal: PrincipalDep) -> Principal:
    """An admin key, read as in `_member`."""
    principal = await parts.authenticator.confirm(principal)
    if not principal.is_admin:
        raise PermissionDeniedError("This endpoint requires an admin key.", code="admin_key_required")
    _refuse_unknown(request)
    return principal


def _refuse_unknown(request: Request) -> None:
    """A misspelt filter would silently match everything. Raises BadRequestError."""
    known = _parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            raise BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")


def _parameters(dependant: Dependant) -> set[str]:
    """The query parameters of a route and of what it depends on."""
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_parameters, dependant.dependencies))


MemberDep = Annotated[Principal, Depends(_member)]
AdminDep = Annotated[Principal, Depends(_admin)]


OrgParameter = Annotated[
    str | None, Query(max_length=256, description="Organisation, for admins of the platform. Default: the key's own.")
]


async def _managed_org(parts: PartsDep, admin: AdminDep, org: OrgParameter = None) -> str:
    """The organisation that a request is about: the admin's own, or `org` for an admin of the platform."""
    if org is not None and org != admin.org:
        require_platform_admin(admin, param="org")
        await parts.orgs.retrieve(org)
    return org or admin.org


def require_platform_admin(admin: Principal, *, param: str | None = None) -> None:
    """Raises PermissionDeniedError."""
    if admin.org != DEFAULT_ORG:
        raise PermissionDeniedError(
            f"Only admins of the platform can do this; the key is an admin's of the organisation '{admin.org}'.",
            param=param,
            code="platform_admin_required",
        )


ManagedOrgDep = Annotated[str, Depends(_managed_org)]
"""The id of an organisation that exists. Its admin key is checked as by `AdminDep`."""
