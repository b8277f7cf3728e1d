"""The files of an offline run: results are appended to `.part` files, which get their names at its end.

What is in them when a run is killed is kept: the next run of the same input continues after it. A line that was half
written is cut off, and its request is executed again.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from quarterdeck.durability import sync_folder
from quarterdeck.protocol.batches.results import Result, Tokens, tokens_of


class ResultFilesError(Exception):
    """The files can't be used; the message says why, and what to do."""


class Identity(msgspec.Struct, frozen=True):
    """What the results are of. A run of anything else does not continue them."""

    input_sha256: str
    endpoint: str
    engine: str = "vllm"
    """Its kind: answers of a simulated one are not mixed with others."""


class Totals(msgspec.Struct):
    completed: int = 0
    failed: int = 0
    tokens: Tokens = Tokens()

    def add(self, *, is_error: bool, tokens: Tokens) -> None:
        self.failed += is_error
        self.completed += not is_error
        mine = self.tokens
        self.tokens = Tokens(
            mine.input + tokens.input,
            mine.cached + tokens.cached,
            mine.output + tokens.output,
            mine.reasoning + tokens.reasoning,
        )


class _Response(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


class ResultFiles:
    """Entered for the time of a run. `totals`: of what is in the files; `done`: the ids of these requests."""

    def __init__(self, output: Path, errors: Path, identity: Identity) -> None:
        self._output, self._errors, self._identity = output, errors, identity
        self._record = output.with_name(output.name + ".run")
        self._lock: IO[bytes] | None = None
        self._files: dict[bool, IO[bytes]] = {}
        self.done: set[str] = set()
        self.totals = Totals()

    def __enter__(self) -> Self:
        """Raises ResultFilesError and OSError."""
        self._lock = self._record.open("a+b")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self._record)):
                raise FileNotFoundError  # a run that has just ended has removed it
        except (BlockingIOError, FileNotFoundError):
            self._lock.close()
            raise ResultFilesError(f"another run writes {self._output}") from None
        try:
            self._continue_or_begin(self._lock)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, results: Sequence[Result]) -> None:
        """Append results. They are on the disk when this returns."""
        for is_error, file in self._files.items():
            texts = [each.text + b"\n" for each in results if each.is_error is is_error]
            if texts:
                file.write(b"".join(texts))
                file.flush()
                os.fsync(file.fileno())
        for each in results:
            self.totals.add(is_error=each.is_error, tokens=each.tokens)

    def finish(self) -> dict[str, Path]:
        """Give the files their names. Returns those that have lines, by the member of a batch that names them."""
        written: dict[str, Path] = {}
        for name, target, has_lines in (
            ("output_file_id", self._output, self.totals.completed),
            ("error_file_id", self._errors, self.totals.failed),
        ):
            part = _part(target)
            if has_lines:
                part.replace(target)
                written[name] = target
            else:  # also a file of an earlier run: it would be taken for a result of this one
                part.unlink(missing_ok=True)
                target.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        for folder in {self._output.parent, self._errors.parent}:
            sync_folder(folder)
        return written

    def _close(self) -> None:
        for file in (*self._files.values(), self._lock):
            if file is not None:
                file.close()

    def _continue_or_begin(self, record: IO[bytes]) -> None:
        record.seek(0)
        if text := record.read():
            try:
                known = msgspec.json.decode(text, type=Identity)
            except msgspec.DecodeError:
                known = None
            if known != self._identity:
                raise ResultFilesError(
                    f"{_part(self._output)} has results of another input or engine, of a run that was not completed:"
                    f" remove it and {self._record}, or choose another --output"
                )
        else:
            for target in (self._output, self._errors):
                _part(target).unlink(missing_ok=True)
            record.write(msgspec.json.encode(self._identity))
            record.flush()
            os.fsync(record.fileno())
        for is_error, target in ((False, self._output), (True, self._errors)):
            file = self._files[is_error] = _part(target).open("a+b")
            for line in _whole_lines(file, _part(target)):
                self.done.add(line.custom_id)
                body = b"" if line.response is None or is_error else bytes(line.response.body)
                self.totals.add(is_error=is_error, tokens=tokens_of(body))


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _whole_lines(file: IO[bytes], path: Path) -> Iterator[_Line]:
    """The lines of a file; what follows its last end of a line is cut off. Raises ResultFilesError."""
    file.seek(0)
    end = 0
    for number, text in enumerate(_lines(file), 1):
        if not text.endswith(b"\n"):
            break
        end += len(text)
        try:
            yield msgspec.json.decode(text, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ResultFilesError(f"{path}: line {number} is not a result: {error}") from None
    file.truncate(end)
    file.seek(0, os.SEEK_END)


def _lines(file: IO[bytes]) -> Iterable[bytes]:
    return iter(file.readline, b"")
