"""Reserve before, settle after: what a request takes of its key's limits, and the record it leaves.

Two atomic scripts. *Reserve* is one round trip: it takes a request, its estimated tokens and a place from the key's
buckets and notes the request as under way. *Settle* is the commit: idempotent by request id, it gives back what was not
used and appends the record to `ledger:{org}`, all or nothing. A reservation has a deadline that its gateway renews; the
worker settles those whose gateway died (`settle_expired`), status `lost`.

All keys of an org carry one hash tag, so that Redis Cluster keeps them together. Time is Redis' own.
Limits are token buckets: full at first, refilled evenly over the minute, so a key may take at most its limit at once
and twice its limit in any one minute.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.record import RequestRecord, encode
from quarterdeck.settings.limits import Limits
from quarterdeck.store.redis import Redis, Script

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""How long a reservation outlives its gateway's last renewal (each third of it), where nothing else is said."""
GRACE_SECONDS = 5
"""How long a gateway has to renew a reservation that was found expired: more than it needs to notice that a Redis which
was away for longer than a lease is back."""
SETTLED_SECONDS = 3600
"""How long a settled id is remembered, for a settle that is sent twice. Later ones meet the ledger's primary key."""


def stream_key(org: str) -> str:
    return f"ledger:{{{org}}}"


def revision_key(org: str) -> str:
    return f"revision:{{{org}}}"


def reservations_key(org: str) -> str:
    return f"reservations:{{{org}}}"


def deadlines_key(org: str) -> str:
    return f"deadlines:{{{org}}}"


def _bucket_key(org: str, key: str) -> str:
    return f"bucket:{{{org}}}:{key}"


def _settled_key(org: str, request_id: str) -> str:
    return f"settled:{{{org}}}:{request_id}"


RESERVE = Script("""
-- KEYS revision reservations deadlines bucket
-- ARGV id lease_ms requests_per_minute tokens_per_minute concurrent tokens note
local rpm, tpm, most, tokens = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local revision = redis.call('GET', KEYS[1]) or '0'
local requests_left, tokens_left = -1, -1
if rpm > 0 or tpm > 0 or most > 0 then
  local b = redis.call('HMGET', KEYS[4], 'at', 'requests', 'tokens', 'running')
  local past = b[1] and math.max(0, now - tonumber(b[1])) or 0
  local running = tonumber(b[4]) or 0
  local requests = math.min(rpm, (tonumber(b[2]) or rpm) + rpm * past / 60000)
  local level = math.min(tpm, (tonumber(b[3]) or tpm) + tpm * past / 60000)
  if rpm > 0 then requests_left = math.floor(requests) end
  if tpm > 0 then tokens_left = math.floor(level) end
  -- a request that is larger than the whole bucket may still run when the bucket is full: its estimate is no fact
  local need = math.min(tokens, tpm)
  if most > 0 and running >= most then
    return {'concurrent', revision, requests_left, tokens_left, 1000}
  end
  if rpm > 0 and requests < 1 then
    return {'requests', revision, requests_left, tokens_left, math.ceil((1 - requests) * 60000 / rpm)}
  end
  if tpm > 0 and level < need then
    return {'tokens', revision, requests_left, tokens_left, math.ceil((need - level) * 60000 / tpm)}
  end
  -- a limit that is not set leaves no field: should it be set later, its bucket is full
  local fields = {'at', now, 'running', running + 1}
  if rpm > 0 then
    fields[#fields + 1], fields[#fields + 2] = 'requests', requests - 1
    requests_left = math.floor(requests - 1)
  elseif b[2] then redis.call('HDEL', KEYS[4], 'requests') end
  if tpm > 0 then
    fields[#fields + 1], fields[#fields + 2] = 'tokens', level - tokens
    tokens_left = math.floor(level - tokens)
  elseif b[3] then redis.call('HDEL', KEYS[4], 'tokens') end
  redis.call('HSET', KEYS[4], unpack(fields))
  redis.call('PEXPIRE', KEYS[4], 86400000)
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[7])
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
return {'ok', revision, requests_left, tokens_left, 0}
""")

SETTLE = Script("""
-- KEYS settled reservations deadlines bucket stream; ARGV id settled_seconds reserved used status record ('' = none)
-- What was settled as lost is settled once more when its gateway, or its spool, turns up: the truth after the guess.
local was = redis.call('GET', KEYS[1])
local is_new = not was or (was == 'lost' and ARGV[5] ~= 'lost')
-- The record first: should Redis refuse it (memory), nothing has been done yet and it may be sent again.
if is_new then
  if ARGV[6] ~= '' then redis.call('XADD', KEYS[5], '*', 'record', ARGV[6]) end
  redis.call('SET', KEYS[1], ARGV[5], 'EX', ARGV[2])
end
-- Also where it was settled before: a reservation that came late (Redis was paused) must not stay.
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 then
  if redis.call('HEXISTS', KEYS[4], 'tokens') == 1 then
    redis.call('HINCRBYFLOAT', KEYS[4], 'tokens', tonumber(ARGV[3]) - tonumber(ARGV[4]))
  end
  if redis.call('HEXISTS', KEYS[4], 'running') == 1 and redis.call('HINCRBY', KEYS[4], 'running', -1) < 0 then
    redis.call('HSET', KEYS[4], 'running', 0)
  end
end
return is_new and 1 or 0
""")

RENEW = Script("""
-- KEYS reservations deadlines; ARGV lease_ms (id note)*
local clock = redis.call('TIME')
local deadline = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('ZADD', KEYS[2], deadline, ARGV[i])
  end
end
return #ARGV
""")

EXPIRED = Script("""
-- KEYS reservations deadlines; ARGV most grace_ms: ids and notes of requests whose gateway let the deadline pass
-- Found the first time, one is only marked ('!') and its gateway has grace_ms to renew it: Redis may have been away.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local found = {}
for _, id in ipairs(ids) do
  local note = redis.call('HGET', KEYS[1], id)
  if not note then
    redis.call('ZREM', KEYS[2], id)
  elseif tonumber(ARGV[2]) == 0 then
    found[#found + 1], found[#found + 2] = id, note
  elseif string.sub(note, 1, 1) == '!' then
    found[#found + 1], found[#found + 2] = id, string.sub(note, 2)
  else
    redis.call('HSET', KEYS[1], id, '!' .. note)
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), id)
  end
end
return found
""")

FORGET = Script("""
-- KEYS reservations deadlines; ARGV id
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
""")


class Note(msgspec.Struct, frozen=True):
    """What Redis keeps of a request under way: enough to settle it when its gateway is gone."""

    reserved: int
    record: RequestRecord
    """With status `lost` and the tokens seen so far."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What *reserve* takes: a request of `tokens` (an estimate) by `key`, noted under `id`."""

    id: str
    org: str
    key: str
    limits: Limits
    tokens: int
    record: RequestRecord
    """The record as it would be if the gateway died now."""
    lease_seconds: float = LEASE_SECONDS


@dataclass(frozen=True, slots=True)
class Admission:
    """What *reserve* answers."""

    refused: str | None
    """None: admitted. Else which limit refused it: requests, tokens, concurrent."""
    revision: int
    """The org's revision: a gateway that holds an older copy of the key reads it again."""
    requests_left: int
    """-1: not counted."""
    tokens_left: int
    retry_after_ms: int


async def reserve(redis: Redis, wanted: Reservation) -> Admission:
    """Take it, or say which limit refuses. Raises RedisUnavailableError."""
    org, limits = wanted.org, wanted.limits
    answer = await redis.run(
        RESERVE,
        (revision_key(org), reservations_key(org), deadlines_key(org), _bucket_key(org, wanted.key)),
        (
            wanted.id,
            round(wanted.lease_seconds * 1000),
            limits.requests_per_minute or 0,
            limits.tokens_per_minute or 0,
            limits.concurrent_requests or 0,
            wanted.tokens,
            msgspec.json.encode(Note(wanted.tokens, wanted.record)),
        ),
    )
    word = answer[0].decode()
    return Admission(None if word == "ok" else word, int(answer[1]), answer[2], answer[3], answer[4])


async def settle(redis: Redis, record: RequestRecord, reserved: int) -> bool:
    """Commit the record; False where it was committed before. Raises RedisUnavailableError: the caller keeps it."""
    return bool(await redis.run(SETTLE, *settle_command(record, reserved)))


def settle_command(record: RequestRecord, reserved: int) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Keys and arguments of SETTLE, for one who sends it himself."""
    return _settlement(record.org, record.key, record.id, reserved, record)


async def release(redis: Redis, reservation: Reservation) -> None:
    """Give everything back and leave no record: the request was refused after it was admitted."""
    await redis.run(SETTLE, *_settlement(reservation.org, reservation.key, reservation.id, reservation.tokens, None))


async def renew(
    redis: Redis, org: str, notes: Sequence[tuple[str, Note]], *, lease_seconds: float = LEASE_SECONDS
) -> None:
    """Tell Redis that these requests are still under way, and how far."""
    words: list[Any] = [round(lease_seconds * 1000)]
    for request_id, note in notes:
        words += (request_id, msgspec.json.encode(note))
    await redis.run(RENEW, (reservations_key(org), deadlines_key(org)), words)


async def settle_expired(redis: Redis, org: str, *, most: int = 100) -> int:
    """Settle requests whose gateway died, as `lost` at the tokens last seen. Returns how many. Repeatable.

    One is settled when it is found expired for the second time, GRACE_SECONDS after the first.
    """
    keys = (reservations_key(org), deadlines_key(org))
    found = await redis.run(EXPIRED, keys, (most, int(GRACE_SECONDS * 1000)))
    count = 0
    for request_id, data in zip(found[::2], found[1::2], strict=True):
        try:
            note = msgspec.json.decode(data.removeprefix(b"!"), type=Note)
        except msgspec.DecodeError as error:
            log.error("the reservation of %s can't be read and is dropped: %s", request_id.decode(), error)
            await redis.run(FORGET, keys, (request_id,))
            continue
        count += await settle(redis, note.record, note.reserved)
    return count


def _settlement(
    org: str, key: str, request_id: str, reserved: int, record: RequestRecord | None
) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    used = record.input_tokens + record.output_tokens if record else 0
    return (
        (
            _settled_key(org, request_id),
            reservations_key(org),
            deadlines_key(org),
            _bucket_key(org, key),
            stream_key(org),
        ),
        (
            *(request_id, SETTLED_SECONDS, reserved, used),
            *((record.status, encode(record)) if record else ("released", b"")),
        ),
    )
