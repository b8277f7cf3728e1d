"""An offline run executes each line once, also in several attempts. Its engines are a function here."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.engine.offline.offline_run import Block, IncompleteRunError, check, run
from quarterdeck.protocol.batches.input_lines import MAX_LINES, Line
from quarterdeck.protocol.batches.results import answered

CHAT = "/v1/chat/completions"


def write_input(path: Path, count: int) -> Path:
    lines = [
        {"custom_id": f"line-{at}", "method": "POST", "url": CHAT, "body": {"model": "m", "messages": []}}
        for at in range(count)
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)))
    return path


class Engines:
    def __init__(self, *, dies_after: int | None = None, failed: frozenset[int] = frozenset()) -> None:
        self.executed: list[str] = []
        self.dies_after, self.failed = dies_after, failed

    def execute(self, lines: Iterable[Line], run_id: str) -> Iterator[Block]:
        for count, line in enumerate(lines):
            if count == self.dies_after:
                raise KeyboardInterrupt
            self.executed.append(line.custom_id)
            status = 400 if int(line.custom_id.removeprefix("line-")) in self.failed else 200
            body = b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}'
            result = answered(run_id, line.number, line.custom_id, status=status, request="r", body=body)
            yield Block([result], time.time())


def run_with(engines: Engines, folder: Path, source: Path, engine: str = "vllm") -> dict[str, Any]:
    output, errors = folder / "out.jsonl", folder / "err.jsonl"
    checked = check(source, CHAT)
    return run(source, CHAT, checked, output, errors, engines.execute, lambda event: None, engine=engine)


def test_a_run_that_was_interrupted_executes_the_rest_once(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", 20)
    first, second = Engines(dies_after=7, failed=frozenset({2})), Engines()
    with pytest.raises(KeyboardInterrupt):
        run_with(first, tmp_path, source)
    done = run_with(second, tmp_path, source)
    assert first.executed + second.executed == [f"line-{at}" for at in range(20)]
    assert done["request_counts"] == {"total": 20, "completed": 19, "failed": 1}
    assert (done["executed"], done["usage"]["output_tokens"]) == (13, 38)
    output = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    errors = [json.loads(line) for line in (tmp_path / "err.jsonl").read_text().splitlines()]
    assert len({each["id"] for each in output + errors}) == 20 == len({each["custom_id"] for each in output + errors})
    assert set(done["written"]) == {"output_file_id", "error_file_id"}


def test_an_invalid_line_is_found_before_any_is_executed(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", 3)
    source.write_text(source.read_text() + '\n{"custom_id": "line-1"}\n')
    checked = check(source, CHAT)
    assert [(each.line, each.code) for each in checked.errors] == [(6, "missing_required_parameter")]


def test_a_run_may_have_more_lines_than_a_batch(tmp_path: Path) -> None:
    checked = check(write_input(tmp_path / "in.jsonl", MAX_LINES + 1), CHAT)
    assert (checked.total, checked.model, checked.errors) == (MAX_LINES + 1, "m", [])


def test_an_input_that_changed_meanwhile_is_another_run(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", 5)
    with pytest.raises(KeyboardInterrupt):
        run_with(Engines(dies_after=2), tmp_path, source)
    write_input(source, 6)
    with pytest.raises(Exception, match="another input"):
        run_with(Engines(), tmp_path, source)


def test_a_run_of_another_engine_does_not_go_on_with_its_results(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", 5)
    with pytest.raises(KeyboardInterrupt):
        run_with(Engines(dies_after=2), tmp_path, source, engine="sim")
    with pytest.raises(Exception, match="another input or engine"):
        run_with(Engines(), tmp_path, source)
    rest = Engines()
    run_with(rest, tmp_path, source, engine="sim")
    assert len(rest.executed) == 3


def test_results_that_come_twice_are_stored_once_and_missing_ones_are_noticed(tmp_path: Path) -> None:
    class Repeating(Engines):
        def execute(self, lines: Iterable[Line], run_id: str) -> Iterator[Block]:
            for block in list(super().execute(lines, run_id))[:3]:
                yield block
                yield block

    source = write_input(tmp_path / "in.jsonl", 5)
    with pytest.raises(IncompleteRunError, match="2 requests"):
        run_with(Repeating(), tmp_path, source)
    assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == 3
    assert run_with(Engines(), tmp_path, source)["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
