"""The part of the composition that OpenAI's stored objects need: responses, conversations, chats, files and batches."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from quarterdeck.accounting.leases import abandon
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.inference.pipeline import Pipeline
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.routing.resolution import resolve
from quarterdeck.inference.streaming.resume import continues
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis import Redis
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.resources.chat_completions.input_files import ChatFiles
from quarterdeck.resources.chat_completions.service import StoredChats
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.files.uploads import Uploads
from quarterdeck.resources.responses.background import Background
from quarterdeck.resources.responses.compaction import Compaction
from quarterdeck.resources.responses.history import History
from quarterdeck.resources.responses.input_files import InputFiles
from quarterdeck.resources.responses.sealed import Sealed
from quarterdeck.resources.responses.service import Responses
from quarterdeck.resources.responses.tool_loop.costs import RunningCosts
from quarterdeck.resources.responses.tool_loop.sessions import ToolSessions
from quarterdeck.resources.tools.directory import ToolDirectory
from quarterdeck.resources.webhooks.object_events import ObjectEvents
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.settings.packaged import config_path
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.batches import BatchStore
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.chat_completions import ChatCompletionStore
from quarterdeck.store.conversation_locks import ConversationLocks
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.store.responses import ResponseStore
from quarterdeck.store.uploads import UploadStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.telemetry.resource_metrics import ResourceMetrics


@dataclass(frozen=True, slots=True)
class StatefulParts:
    """What routes, jobs and the end of the process need of them."""

    responses: Responses
    response_store: ResponseStore
    background: Background
    compaction: Compaction
    conversations: ConversationStore
    stored_chats: StoredChats
    chat_files: ChatFiles
    chat_completions: ChatCompletionStore
    files: Files
    uploads: Uploads
    batches: BatchStore
    tools: ToolDirectory


def compose_stateful(
    environment: Environment,
    config: Live[Config],
    *,
    directory: Live[Directory],
    endpoints: EndpointRegistry,
    pipeline: Pipeline,
    settlement: Settlement,
    costs: RunningCosts,
    redis: Redis,
    database: Database,
    blobs: Blobs,
    outbox: WebhookOutbox,
    tasks: BackgroundTasks,
    requests_in_flight: RequestsInFlight,
    metrics: ResourceMetrics,
    confirm: Callable[[Principal], Awaitable[Principal]],
) -> StatefulParts:
    """`confirm` reads a key as it is now."""
    files = Files(FileStore(database), blobs, lambda: config.current.files, on_written=metrics.written)
    response_store, conversations = ResponseStore(database), ConversationStore(database)
    chat_completions = ChatCompletionStore(database)
    tools_config = config.select(lambda each: each.tools)
    tool_directory = ToolDirectory(
        tools_config,
        environment.variables,
        folder=config_path(environment).parent,
        proxies=Proxies(environment.variables),
    )
    tool_sessions = ToolSessions(tool_directory, tools_config, settlement, costs, count=metrics.called)
    background_store = BackgroundStore(
        database, JobStore(database), ObjectEvents(outbox, lambda: config.current.webhooks)
    )
    sealed = Sealed(PlatformSecret(database, "compaction"))
    input_files = InputFiles(files)
    chat_files = ChatFiles(pipeline, input_files, confirm)
    history = History(response_store, conversations, input_files, sealed)

    def can_continue(model: str, principal: Principal) -> bool:
        return continues(resolve(directory.current, endpoints, model, principal), endpoints)

    def is_stopping() -> bool:
        return requests_in_flight.is_leaving

    background = Background(
        pipeline,
        background_store,
        history,
        partial(abandon, redis),
        can_continue,
        tools=tool_sessions,
        is_stopping=is_stopping,
        confirm=confirm,
    )
    responses = Responses(
        pipeline,
        response_store,
        conversations,
        tasks.spawn,
        history=history,
        locks=ConversationLocks(database),
        background=background_store,
        tools=tool_sessions,
        is_stopping=is_stopping,
        stop=background.stop,
        confirm=confirm,
    )
    return StatefulParts(
        responses=responses,
        response_store=response_store,
        background=background,
        compaction=Compaction(pipeline, history, sealed),
        conversations=conversations,
        stored_chats=StoredChats(chat_files, chat_completions, tasks.spawn),
        chat_files=chat_files,
        chat_completions=chat_completions,
        files=files,
        uploads=Uploads(UploadStore(database), files, blobs),
        batches=BatchStore(database, JobStore(database)),
        tools=tool_directory,
    )
