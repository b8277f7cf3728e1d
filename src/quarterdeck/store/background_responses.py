"""Background responses: queued with their job, executed under a fence, followed while they run.

A response is executed by one gateway at a time: the one whose attempt the row names, until `alive_until`. Every write
of an execution needs that attempt, so one that was cancelled, deleted or taken over by another gateway writes nothing
more. Its steps are stored as they come (`response_steps`), and moved into its row when it ends.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import insert, or_, select, tuple_, update

from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError, RateLimitError
from quarterdeck.store.conversation_locks import lock_on, unlock_on
from quarterdeck.store.conversations import append_on
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.jobs import DEADLINE_SECONDS, JobStore, NewJob
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import pack, unpack, unpack_all
from quarterdeck.store.response_deletion import forget_steps
from quarterdeck.store.response_tables import response_steps, responses, stored_items
from quarterdeck.store.responses import NewResponse, insert_response, no_such_response, packed_items, without_output
from quarterdeck.store.stored_items import Item, NewItem, insert_items

log = logging.getLogger(__name__)

KIND = "response"
"""Of the jobs."""
OPEN = ("queued", "in_progress")
MAX_OPEN = 1000
"""Background responses of one organisation that may be open: limits of keys apply when they are executed, not when
they are queued. More requests are a batch."""
MAX_OPEN_BYTES = 1024**3
"""Of their requests."""


class Events(Protocol):
    """Records webhook events (`resources.webhooks.object_events`)."""

    async def record_on(self, transaction: Transaction, type: str, org: str, id: str, *, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Execution:
    """A response that this gateway executes. `body` is the response object as it was queued."""

    id: str
    attempt: int
    body: dict[str, Any]
    owner: Owner
    origin: Origin
    created: float
    input: Sequence[Item]
    steps: Sequence[Any]
    """Those that an earlier attempt has stored."""
    shows_logprobs: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """A response that is followed."""

    status: str
    steps: Sequence[Any]
    """Of one that is open: those from the position on that was asked for."""


@dataclass(frozen=True, slots=True)
class Open:
    """A response that has not ended, to be ended by others than its execution."""

    body: dict[str, Any]
    steps: Sequence[Any]
    shows_logprobs: bool


class BackgroundStore:
    """`events`: what is recorded when a response ends. None: nothing."""

    def __init__(self, database: Database, jobs: JobStore, events: Events | None = None) -> None:
        self._database = database
        self._jobs = jobs
        self._events = events

    async def enqueue(self, new: NewResponse, request: bytes) -> None:
        """Store a response with the job that executes it. `request`: the body that asked for it. Raises RateLimitError
        where the organisation has too many that have not ended."""
        body = await pack(without_output(new.body))
        # Whether its events show logprobs, where the row has them.
        steps = await pack({"steps": [], "shows_logprobs": new.shows_logprobs})
        items = await packed_items(new.input)
        job = NewJob(
            kind=KIND, org=new.owner.org, team=new.owner.team, key=new.owner.key, subject=new.id, payload=request
        )
        conversation = new.body["conversation"]
        async with self._database.begin() as transaction:
            if conversation is not None:
                await lock_on(
                    transaction, conversation["id"], new.owner, new.id, now=new.created, seconds=DEADLINE_SECONDS
                )
            await insert_response(transaction, new, body, steps, None, attempt=0)
            await insert_items(transaction, new.id, items, new.owner, new.created, origin=new.origin)
            await self._jobs.add_on(transaction, job)
            count, size = await self._jobs.open_on(transaction, KIND, new.owner.org)
            if count > MAX_OPEN or size > MAX_OPEN_BYTES:
                raise _too_many()

    async def take(self, id: str, org: str, *, alive_until: float, now: float) -> Execution | Literal["ended", "busy"]:
        """Begin to execute a response, or to continue. "ended": there is nothing to do. "busy": an earlier attempt may
        still run at another gateway."""
        mine = (responses.c.id == id) & (responses.c.org == org) & responses.c.attempt.is_not(None)
        is_free = or_(responses.c.alive_until.is_(None), responses.c.alive_until < now)
        taking = update(responses).where(mine, responses.c.status.in_(OPEN), is_free)
        values = {"attempt": responses.c.attempt + 1, "status": "in_progress", "alive_until": alive_until}
        async with self._database.begin() as transaction:
            row = (await transaction.execute(taking.values(values).returning(*responses.c))).one_or_none()
            if row is None:
                status = await transaction.scalar(select(responses.c.status).where(mine))
                return "busy" if status in OPEN else "ended"
            given = select(stored_items.c.body).where(stored_items.c.owner == id).order_by(stored_items.c.position)
            items = list(await transaction.scalars(given))
            steps = await _steps_from(transaction, id, 0)
        return Execution(
            id=id,
            attempt=row.attempt,
            body={**await unpack(row.body), "status": "queued", "output": []},
            owner=Owner(row.org, row.team, row.key),
            origin=Origin(row.request, row.user, row.session),
            created=row.created,
            input=await unpack_all(items),
            steps=await _unpacked_steps(steps),
            shows_logprobs=(await unpack(row.steps))["shows_logprobs"],
        )

    async def renew(self, attempts: Mapping[str, int], *, alive_until: float) -> set[str]:
        """Keep executions from being taken over. Returns the responses that are still theirs."""
        if not attempts:
            return set()
        held = tuple_(responses.c.id, responses.c.attempt).in_(list(attempts.items()))
        statement = update(responses).where(held, responses.c.status == "in_progress").values(alive_until=alive_until)
        async with self._database.begin() as transaction:
            return set(await transaction.scalars(statement.returning(responses.c.id)))

    async def append(self, execution: Execution, position: int, steps: Sequence[Any]) -> bool:
        """Store further steps, which begin at `position`. False: the execution is not this gateway's any more."""
        body = await pack(steps)
        row = {"response": execution.id, "position": position, "count": len(steps), "body": body}
        async with self._database.begin() as transaction:
            if not await _fence(transaction, execution, {"attempt": execution.attempt}):
                return False
            await transaction.execute(insert(response_steps).values(**row))
        return True

    async def pause(self, execution: Execution) -> None:
        """Give an execution back: another gateway may take it at once."""
        async with self._database.begin() as transaction:
            await _fence(transaction, execution, {"alive_until": None})

    async def finish(self, execution: Execution, body: dict[str, Any], steps: Sequence[Any], *, now: float) -> bool:
        """Store the end of an execution: the response, its items in its conversation, and the event. False: it is not
        this gateway's any more."""
        packed = await pack(without_output(body))
        stored = await pack({"steps": steps, "shows_logprobs": execution.shows_logprobs})
        output = await packed_items(body["output"], is_output=True)
        values = {"status": body["status"], "alive_until": None, "body": packed, "steps": stored}
        conversation = body["conversation"]
        said = []
        if conversation is not None and body["status"] in ("completed", "incomplete"):
            said = await packed_items([*execution.input, *body["output"]])
        async with self._database.begin() as transaction:
            if not await _fence(transaction, execution, values):
                return False
            await forget_steps(transaction, [execution.id])
            await insert_items(
                transaction,
                execution.id,
                output,
                execution.owner,
                execution.created,
                start=len(execution.input),
                origin=execution.origin,
            )
            if conversation is not None:
                await self._say(transaction, conversation["id"], said, execution, now)
            await self._record(transaction, execution.owner.org, execution.id, body["status"], now)
        return True

    async def _say(
        self, transaction: Transaction, conversation: str, items: Sequence[NewItem], execution: Execution, now: float
    ) -> None:
        """Add items to the conversation, which is unlocked."""
        try:
            await append_on(
                transaction, conversation, items, execution.owner, now, origin=execution.origin, by=execution.id
            )
        except (NotFoundError, BadRequestError, ConflictError) as error:  # deleted meanwhile, or full
            log.warning("response was not added to its conversation: %s", error, extra={"response": execution.id})
            await unlock_on(transaction, conversation, execution.id)

    async def read_open(self, id: str, org: str) -> Open | None:
        """A background response that has not ended. None: there is none, or it has ended."""
        mine = (responses.c.id == id) & (responses.c.org == org) & responses.c.attempt.is_not(None)
        async with self._database.connect() as connection:
            row = (await connection.execute(select(responses).where(mine))).one_or_none()
            steps = await _steps_from(connection, id, 0)
        if row is None or row.status not in OPEN:
            return None
        shows_logprobs = (await unpack(row.steps))["shows_logprobs"]
        body = {**await unpack(row.body), "status": row.status, "output": []}
        return Open(body, await _unpacked_steps(steps), shows_logprobs)

    async def end(self, id: str, org: str, open: Open, body: dict[str, Any], *, now: float) -> bool:
        """End a response for its execution, which it loses: it was cancelled, or no attempt is left. False: it has
        ended meanwhile."""
        packed = await pack(without_output(body))
        stored = await pack({"steps": open.steps, "shows_logprobs": open.shows_logprobs})
        output = await packed_items(body["output"], is_output=True)
        values = {"status": body["status"], "alive_until": None, "body": packed, "steps": stored}
        mine = (responses.c.id == id) & (responses.c.org == org) & responses.c.status.in_(OPEN)
        statement = update(responses).where(mine, responses.c.attempt.is_not(None)).values(values)
        async with self._database.begin() as transaction:
            row = (await transaction.execute(statement.returning(*responses.c))).one_or_none()
            if row is None:
                return False
            await forget_steps(transaction, [id])
            await self._jobs.cancel_on(transaction, org, [id])
            if row.conversation is not None:
                await unlock_on(transaction, row.conversation, id)
            owner, origin = Owner(row.org, row.team, row.key), Origin(row.request, row.user, row.session)
            count = select(stored_items.c.position).where(stored_items.c.owner == id)
            last = await transaction.scalar(count.order_by(stored_items.c.position.desc()).limit(1))
            start = 0 if last is None else last + 1
            await insert_items(transaction, id, output, owner, row.created, start=start, origin=origin)
            await self._record(transaction, org, id, body["status"], now)
        return True

    async def progress(self, id: str, of: Owner, position: int) -> Progress:
        """The steps of a response from a position on. Raises NotFoundError."""
        query = select(responses.c.status).where(responses.c.id == id, of.owns(responses))
        async with self._database.connect() as connection:
            status = await connection.scalar(query)
            steps = await _steps_from(connection, id, position) if status in OPEN else []
        if status is None:
            raise no_such_response(id)
        return Progress(status, await _unpacked_steps(steps))

    async def _record(self, transaction: Transaction, org: str, id: str, status: str, now: float) -> None:
        if self._events is not None:
            await self._events.record_on(transaction, f"response.{status}", org, id, now=now)


def _too_many() -> RateLimitError:
    return RateLimitError(
        f"The organisation has too many background responses that have not ended: at most {MAX_OPEN}, whose requests"
        f" have {MAX_OPEN_BYTES // 1024**2} MiB together. Wait for some of them, or send a batch.",
        code="too_many_background_responses",
        retry_after=10,
    )


def not_background() -> BadRequestError:
    return BadRequestError(
        "Cannot cancel a synchronous response. Close its connection to stop it.", param="response_id"
    )


async def _fence(transaction: Transaction, execution: Execution, values: dict[str, Any]) -> bool:
    mine = (responses.c.id == execution.id) & (responses.c.attempt == execution.attempt)
    statement = update(responses).where(mine, responses.c.status == "in_progress").values(**values)
    return bool((await transaction.execute(statement)).rowcount)


async def _steps_from(connection: Any, id: str, position: int) -> list[bytes]:
    columns = response_steps.c
    query = select(columns.body).where(columns.response == id, columns.position >= position)
    return list(await connection.scalars(query.order_by(columns.position)))


async def _unpacked_steps(bodies: Sequence[bytes]) -> list[Any]:
    return [step for steps in await unpack_all(bodies) for step in steps]
