"""A request of an offline run has one result, whatever its engine does."""

import asyncio

from quarterdeck.engine.offline.line_executor import MAX_LOST, EngineAnswer, EngineLostError, LineExecutor
from quarterdeck.protocol.batches.input_lines import Line
from quarterdeck.protocol.batches.results import MAX_TRIES


def a_line(number: int, body: bytes = b"{}") -> Line:
    return Line(number, f"line-{number}", "m", body)


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


class Engine:
    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.now = self.most = self.sent = 0

    async def post(self, body: bytes) -> EngineAnswer:
        self.sent += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return EngineAnswer(self.statuses.pop(0) if self.statuses else 200, b'{"usage": {"completion_tokens": 3}}')


async def test_an_answer_is_the_result() -> None:
    engine = Engine()
    found = await LineExecutor(engine.post, "run", 9, sleep=no_sleep).execute(a_line(1))
    assert (found.line, found.is_error, found.tokens.output) == (1, False, 3)


async def test_a_bad_request_is_an_error_at_once() -> None:
    engine = Engine(400)
    found = await LineExecutor(engine.post, "run", 9, sleep=no_sleep).execute(a_line(1))
    assert found.is_error and engine.sent == 1


async def test_a_failure_is_tried_again_and_room_is_waited_for() -> None:
    engine = Engine(500, 429, 429, 503, 200)
    found = await LineExecutor(engine.post, "run", 9, sleep=no_sleep).execute(a_line(1))
    assert not found.is_error and engine.sent == 5


async def test_a_request_that_always_fails_has_failed_after_some_tries() -> None:
    engine = Engine(*[500] * 100)
    found = await LineExecutor(engine.post, "run", 9, sleep=no_sleep).execute(a_line(1))
    assert found.is_error and engine.sent == MAX_TRIES


async def test_no_more_requests_are_sent_at_once_than_the_engine_executes() -> None:
    engine = Engine()
    executor = LineExecutor(engine.post, "run", 3, sleep=no_sleep)
    await asyncio.gather(*(executor.execute(a_line(number)) for number in range(20)))
    assert engine.most == 3


async def test_a_request_that_ends_its_engine_fails_and_takes_no_other_with_it() -> None:
    class Dying:
        def __init__(self) -> None:
            self.dies = asyncio.Event()

        async def post(self, body: bytes) -> EngineAnswer:
            dies = self.dies
            if body == b"poison":
                for _ in range(10):  # the others arrive
                    await asyncio.sleep(0)
                self.dies = asyncio.Event()
                dies.set()
            try:
                await asyncio.wait_for(dies.wait(), 0.05)
            except TimeoutError:
                return EngineAnswer(200, b"{}")
            raise EngineLostError("cut off", was_sent=True)

    executor = LineExecutor(Dying().post, "run", 9, sleep=no_sleep)
    lines = [a_line(number, b"poison" if number == 3 else b"{}") for number in range(6)]
    found = await asyncio.gather(*map(executor.execute, lines))
    assert [each.is_error for each in found] == [number == 3 for number in range(6)]
    assert b"no_answer" in found[3].text


async def test_an_engine_that_can_not_be_reached_is_no_failure_of_the_request() -> None:
    class Away(Engine):
        async def post(self, body: bytes) -> EngineAnswer:
            if self.sent <= 3 * MAX_LOST:
                self.sent += 1
                raise EngineLostError("refused", was_sent=False)
            return await super().post(body)

    found = await LineExecutor(Away().post, "run", 9, sleep=no_sleep).execute(a_line(1))
    assert not found.is_error
