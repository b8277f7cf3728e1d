"""Batches end as they should, whatever they hold and whatever dies meanwhile: each request once, charged once."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import Batch
from tests.faults.batch_stack import CHAT, ENDED, OTHER, BatchStack, chat_line
from tests.servers import RedisServer, short_folder, wait_until


@pytest.fixture(scope="module")
def stack(redis_server: RedisServer, platform_database_url: str) -> Iterator[BatchStack]:
    folder = short_folder()
    made = BatchStack(folder, redis_server, platform_database_url)
    yield made
    made.stop()
    shutil.rmtree(folder)


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def check_lines(stack: BatchStack, batch: Batch, total: int) -> tuple[list[Any], list[Any]]:
    """Each line is in one of the files, once, and the counts say so."""
    output, errors = stack.lines(batch.output_file_id), stack.lines(batch.error_file_id)
    assert counts(batch) == (total, len(output), len(errors)) and len(output) + len(errors) == total
    assert Counter(each["custom_id"] for each in output + errors) == Counter(f"line-{at}" for at in range(total))
    assert len({each["id"] for each in output + errors}) == total
    return output, errors


def test_a_batch_is_executed_and_its_files_have_every_line(stack: BatchStack) -> None:
    lines = [chat_line(at, **({"temperature": 99} if at % 10 == 3 else {})) for at in range(40)]
    batch = stack.ended(stack.create(lines, metadata={"job": "nightly"}))
    assert (batch.status, batch.metadata, batch.model) == ("completed", {"job": "nightly"}, "chat")
    output, errors = check_lines(stack, batch, 40)
    assert len(errors) == 4 and errors[0]["response"]["status_code"] == 400
    assert errors[0]["response"]["body"]["error"]["message"]
    assert output[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert batch.usage is not None and batch.completed_at is not None and batch.in_progress_at is not None
    bodies = [each["response"]["body"] for each in output]
    assert batch.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in bodies)
    assert batch.output_file_id is not None
    assert stack.client().files.retrieve(batch.output_file_id).purpose == "batch_output"


@pytest.mark.parametrize(
    ("endpoint", "body", "shown"),
    [
        ("/v1/completions", {"model": "chat", "prompt": "x", "max_tokens": 2}, "text_completion"),
        ("/v1/embeddings", {"model": "org/emb", "input": "x"}, "list"),
        ("/v1/responses", {"model": "chat", "input": "x", "max_output_tokens": 16}, "response"),
    ],
)
def test_every_endpoint_is_executed(stack: BatchStack, endpoint: str, body: Any, shown: str) -> None:
    lines = [{"custom_id": f"line-{at}", "method": "POST", "url": endpoint, "body": body} for at in range(2)]
    batch = stack.ended(stack.create(lines, endpoint))
    output, _ = check_lines(stack, batch, 2)
    assert [each["response"]["body"]["object"] for each in output] == [shown] * 2
    assert batch.usage is not None and batch.usage.input_tokens > 0


def test_an_invalid_line_fails_the_batch_before_anything_is_executed(stack: BatchStack) -> None:
    batch = stack.ended(stack.create([chat_line(0), chat_line(0), {"custom_id": "x"}]))
    assert (batch.status, batch.output_file_id, batch.failed_at is not None) == ("failed", None, True)
    assert batch.errors is not None and batch.errors.data is not None
    assert [(each.line, each.code) for each in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "missing_required_parameter"),
    ]


def test_a_cancelled_batch_keeps_what_is_done(stack: BatchStack) -> None:
    batch = stack.create([chat_line(at, max_tokens=200, ignore_eos=True) for at in range(400)])
    stack.progressed(batch, 5)
    assert stack.client().batches.cancel(batch.id).status == "cancelling"
    done = stack.ended(batch)
    assert done.status == "cancelled" and done.cancelled_at is not None
    output, errors = check_lines(stack, done, 400)
    assert output and errors[-1]["error"]["code"] == "batch_cancelled" and errors[-1]["response"] is None
    assert stack.client().batches.cancel(batch.id).status == "cancelled"


@pytest.mark.long  # several batches, or a worker that starts again
def test_what_is_not_executed_in_time_expires(stack: BatchStack) -> None:
    lines = [chat_line(at, max_tokens=2000, ignore_eos=True) for at in range(300)]
    batch = stack.create(lines)
    stack.progressed(batch, 1)
    stack.execute("UPDATE batches SET expires = 1 WHERE id = :id", id=batch.id)
    stack.kill_worker()
    stack.end_leases()
    stack.start_worker()
    done = stack.ended(batch)
    assert (done.status, done.expired_at is not None) == ("expired", True)
    _, errors = check_lines(stack, done, 300)
    assert {each["error"]["code"] for each in errors if each["error"]} == {"batch_expired"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"endpoint": "/v1/moderations"}, openai.BadRequestError),
        ({"completion_window": "soon"}, openai.BadRequestError),
        ({"completion_window": "8d"}, openai.BadRequestError),
        ({"input_file_id": "file-none"}, openai.NotFoundError),
    ],
)
def test_a_batch_that_can_not_be_made_is_refused(
    stack: BatchStack, changes: dict[str, Any], error: type[Exception]
) -> None:
    made = stack.create([chat_line(0)])
    wanted = {"input_file_id": made.input_file_id, "endpoint": CHAT, "completion_window": "24h"} | changes
    with pytest.raises(error):
        stack.client().batches.create(**wanted)  # type: ignore[arg-type]


def test_another_team_sees_none_of_it(stack: BatchStack) -> None:
    batch = stack.ended(stack.create([chat_line(0)]))
    other = stack.client(OTHER)
    assert [each.id for each in other.batches.list()] == []
    for act in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            act(batch.id)
    with pytest.raises(openai.NotFoundError):
        other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        other.batches.list(after=batch.id)


@pytest.mark.long  # several batches, or a worker that starts again
def test_batches_are_listed_in_pages_newest_first(stack: BatchStack) -> None:
    made = [stack.create([chat_line(0)]).id for _ in range(3)]
    client = stack.client()
    listed = [each.id for each in client.batches.list(limit=2)]
    assert listed[:3] == made[::-1] and len(set(listed)) == len(listed)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(stack.ended(client.batches.retrieve(made[0])).id)


def test_a_revoked_key_ends_its_batch_with_the_reason(stack: BatchStack) -> None:
    made = stack.admin("POST", "/admin/keys", {"name": "short-lived"})
    lines = [chat_line(at, max_tokens=100, ignore_eos=True) for at in range(400)]
    batch = stack.create(lines, key=made["key"])
    stack.progressed(batch, 1)
    stack.admin("DELETE", f"/admin/keys/{made['id']}")
    done = stack.ended(batch)
    assert done.status == "failed" and done.errors is not None and done.errors.data is not None
    assert "can't be used any more" in (done.errors.data[0].message or "")
    output, errors = check_lines(stack, done, 400)
    assert output and errors[-1]["error"]["code"] == done.errors.data[0].code


@pytest.mark.long  # several batches, or a worker that starts again
def test_a_batch_whose_input_is_deleted_is_executed_to_its_end(stack: BatchStack) -> None:
    batch = stack.create([chat_line(at, max_tokens=100, ignore_eos=True) for at in range(400)])
    stack.progressed(batch, 1)
    stack.client().files.delete(batch.input_file_id)
    stack.kill_worker()
    stack.end_leases()
    stack.start_worker()
    done = stack.ended(batch)
    assert done.status == "completed"
    check_lines(stack, done, 400)
    with pytest.raises(openai.NotFoundError):
        stack.client().files.retrieve(batch.input_file_id)


@pytest.mark.long  # all records must be in the ledger first
def test_what_is_deleted_of_a_user_is_gone_from_the_results(stack: BatchStack) -> None:
    lines = [chat_line(at, user=f"u-{at % 2}") for at in range(20)]
    batch = stack.ended(stack.create(lines))
    wait_until(lambda: len(stack.ledger()) >= 20)
    stack.admin("DELETE", "/admin/contents?user=u-1")

    def deleted() -> list[Any]:
        found = stack.lines(batch.output_file_id)
        return [each for each in found if (each["error"] or {}).get("code") == "content_deleted"]

    wait_until(lambda: len(deleted()) == 10)
    output, _ = check_lines(stack, batch, 20)
    for each in output:
        is_kept = int(each["custom_id"].removeprefix("line-")) % 2 == 0
        assert (each["response"]["body"] is not None) is is_kept


@pytest.mark.long  # the gateway is started again
def test_lines_that_a_shutdown_of_the_gateway_cuts_off_are_charged_once(stack: BatchStack) -> None:
    stack.ended(stack.create([chat_line(0)]))  # so that there is a row to wait for
    before = {row.id for row in stack.ledger()}
    lines = [chat_line(at, max_tokens=3000, ignore_eos=True) for at in range(8)]
    batch = stack.create(lines)
    wait_until(lambda: stack.simulator.running() > 0, seconds=120, what=lambda: "the engine does not run")
    stack.gateway.stop()  # which waits for a second
    stack.gateway.start()
    done = stack.ended(batch)
    output, errors = check_lines(stack, done, 8)
    assert (done.status, errors) == ("completed", [])
    rows = {row.id: row for row in stack.ledger() if row.id not in before}
    assert {row.status for row in rows.values()} == {"ok"}
    assert set(rows) == {each["response"]["request_id"] for each in output}


def kill_at_random(
    stack: BatchStack, batch: Batch, redis: RedisServer, lines: int, kills: int, random_: random.Random
) -> int:
    """Kill processes in turn, each time after another part of the batch. Returns how many before it had ended."""
    for kill, done in enumerate(sorted(random_.sample(range(lines // 2), kills))):
        if stack.progressed(batch, done, seconds=600).status in ENDED:
            return kill
        time.sleep(random_.uniform(0, 0.5))  # also between two results that are stored together
        what = ("worker", "gateway", "redis")[kill % 3]
        if what == "worker":
            stack.kill_worker()
            stack.end_leases()
            stack.start_worker()
        elif what == "gateway":
            stack.gateway.kill()
            stack.gateway.start()
        else:
            redis.kill()
            redis.start()
    return kills


def check_books(stack: BatchStack, output: list[Any]) -> None:
    """The ledger has each request once, with the tokens that its output states."""
    rows = {row.id: row for row in stack.ledger()}
    for each in output:
        row, usage = rows[each["response"]["request_id"]], each["response"]["body"]["usage"]
        assert row.status == "ok", row
        assert (row.input_tokens, row.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert sum(row.status == "ok" for row in rows.values()) == len(output)


def survive(
    lines: int, kills: int, seed: int, database_url: str | None = None, *, latency: str = "1s", most_missed: int = 0
) -> None:
    """The engine's latency makes the second half of a batch last longer than the kills' pauses."""
    folder = short_folder()
    redis = RedisServer(folder, durable=True)
    redis.start()
    database_url = database_url or f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    stack = BatchStack(folder, redis, database_url, options=["--time-to-first-token", latency])
    try:
        batch = stack.create([chat_line(at) for at in range(lines)])
        killed = kill_at_random(stack, batch, redis, lines, kills, random.Random(seed))  # no secret
        assert killed >= kills - most_missed
        done = stack.ended(batch, seconds=1800)
        output, errors = check_lines(stack, done, lines)
        assert (done.status, errors) == ("completed", [])
        check_books(stack, output)
    finally:
        stack.stop()
        redis.stop()
        shutil.rmtree(folder)


def test_kills_lose_and_repeat_nothing() -> None:
    survive(400, 3, 1)


@pytest.mark.long  # as the test before, with another database
def test_kills_lose_and_repeat_nothing_on_postgres(empty_postgres_url: str) -> None:
    survive(400, 3, 3, empty_postgres_url)


@pytest.mark.long  # the processes are killed and started twenty times
def test_ten_thousand_requests_survive_twenty_kills() -> None:
    survive(10_000, 20, 2, latency="100ms", most_missed=7)
