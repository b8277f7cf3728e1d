"""A repository's files, from the hub into Hugging Face's cache. Runs in the child process (`__main__`).

huggingface_hub asks the hub, knows tokens and proxies, and keeps its cache's form. Large files are downloaded by
`resumable`, and are in the cache by the time huggingface_hub looks for them.
"""

import glob
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_url, snapshot_download
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import http_stream_backoff

from quarterdeck.weights import hub_errors
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.local import DEFAULT_REVISION, Receipts, Weights, repository_folder
from quarterdeck.weights.progress import size_text
from quarterdeck.weights.resumable import PIECE, Blob, DamagedError, download
from quarterdeck.weights.selection import CONFIG, has_weights, needed_files

LARGE = 8 << 20
"""Files below this many bytes are not resumed."""
PARALLEL = 4
"""Large files at once: a hub limits each connection."""
MAX_PLAIN = 50_000_000_000
"""Bytes up to which the hub serves a file by plain HTTP. Larger ones come by its Xet protocol, and are not resumed."""
RESERVED_SHARE = 0.05
RESERVED_MOST = 1 << 30
ASK_SECONDS = 30.0

OnBytes = Callable[[int, int], None]
"""Gets bytes done and total."""


def reserved_bytes(disk: int) -> int:
    """Bytes that a download leaves free on a disk of this size, for the database and Redis beside it."""
    return min(RESERVED_MOST, int(disk * RESERVED_SHARE))


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size: int
    blob: Blob | None
    """None: small, or too large for plain HTTP."""


class Hub:
    """`variables`: the environment, for the place of the cache."""

    def __init__(self, variables: Mapping[str, str], cache: Path) -> None:
        self._variables, self._cache = variables, cache

    def fetch(self, repository: str, revision: str | None, on_bytes: OnBytes) -> Weights:
        """Download what is missing. Raises WeightsError."""
        wanted = revision or DEFAULT_REVISION
        try:
            info = HfApi().model_info(repository, revision=wanted, files_metadata=True, timeout=ASK_SECONDS)
            return self._fetch(repository, wanted, info, on_bytes)
        except DamagedError:
            raise WeightsError("damaged", f"A file of {repository} arrived damaged: it is downloaded again.") from None
        except WeightsError:
            raise
        except hub_errors.KNOWN as error:
            raise hub_errors.translate(
                error, repository, wanted, repository_folder(repository, self._variables)
            ) from error

    def _fetch(self, repository: str, revision: str, info: ModelInfo, on_bytes: OnBytes) -> Weights:
        commit = info.sha or revision
        root = repository_folder(repository, self._variables)
        files = _files(info, root)
        if not has_weights(file.name for file in files):
            what = (
                f"it has no {CONFIG}"
                if all(file.name != CONFIG for file in files)
                else "it has no weights in a format that vLLM reads"
            )
            raise WeightsError("not_a_model", f"{repository} can't be served: {what}.")
        snapshot = root / "snapshots" / commit
        counter = _Counter(sum(file.size for file in files), sum(_present(file, snapshot) for file in files), on_bytes)
        _check_disk(repository, root, counter.total - counter.done)
        counter.report()
        with ThreadPoolExecutor(PARALLEL) as pool:
            tasks = [
                pool.submit(self._download, repository, commit, file.name, file.blob, counter)
                for file in files
                if file.blob is not None and _present(file, snapshot) < file.size
            ]
            done, waiting = wait(tasks, return_when=FIRST_EXCEPTION)
            counter.is_stopped = bool(waiting)
        for task in done:
            task.result()
        folder = snapshot_download(
            repository,
            revision=commit,
            cache_dir=root.parent,
            allow_patterns=[glob.escape(file.name) for file in files],
            etag_timeout=ASK_SECONDS,
        )
        sizes = {file.name: (Path(folder) / file.name).stat().st_size for file in files}
        weights = Weights(repository, commit, Path(folder), sum(sizes.values()))
        Receipts(self._cache).write(weights, sizes, revision)
        counter.finish()
        return weights

    def _download(self, repository: str, commit: str, name: str, blob: Blob, counter: "_Counter") -> None:
        url = hf_hub_url(repository, name, revision=commit)

        @contextmanager
        def open_at(offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
            headers = {**build_hf_headers(), "accept-encoding": "identity"}
            if offset:
                headers["range"] = f"bytes={offset}-"
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            with http_stream_backoff("GET", url, headers=headers, timeout=timeout, max_retries=2) as response:
                hub_errors.raise_for_status(response)
                yield offset if response.status_code == 206 else 0, response.iter_bytes(PIECE)

        def on_bytes(count: int) -> None:
            counter.add(count)
            if counter.is_stopped:
                raise InterruptedError
            if counter.should_look_at_disk():
                _check_disk(repository, blob.path.parent, 0)

        download(blob, open_at, on_bytes, retry_on=(httpx2.TransportError,))


def _files(info: ModelInfo, root: Path) -> list[_File]:
    by_name = {each.rfilename: each for each in info.siblings or ()}
    found = []
    for name in needed_files(by_name):
        sibling = by_name[name]
        size = sibling.size or 0
        blob = None
        if sibling.lfs is not None and LARGE <= size <= MAX_PLAIN:
            blob = Blob(root / "blobs" / sibling.lfs.sha256, size, sibling.lfs.sha256)
        found.append(_File(name, size, blob))
    return found


def _present(file: _File, snapshot: Path) -> int:
    """Bytes of a file that lie here."""
    try:
        if (snapshot / file.name).stat().st_size == file.size:
            return file.size
    except OSError:
        pass  # not there: a partial file may be
    return 0 if file.blob is None else file.blob.present


def _check_disk(repository: str, folder: Path, missing: int) -> None:
    """Raises WeightsError where the disk has no room for `missing` bytes."""
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    reserved = reserved_bytes(disk.total)
    if disk.free - reserved >= missing:
        return
    if missing == 0:
        raise WeightsError(
            "disk_full",
            f"The download of {repository} stopped: only {size_text(disk.free)} are free in {folder}. "
            "Free some space; it will be resumed.",
        )
    raise WeightsError(
        "disk_too_small",
        f"{repository} needs {size_text(missing)} more, and {size_text(max(0, disk.free - reserved))} can be used in "
        f"{folder} ({size_text(disk.free)} free, {size_text(reserved)} kept for the platform). Free some space, or set "
        "HF_HOME to a folder on a larger disk.",
    )


class _Counter:
    """Bytes of all threads."""

    def __init__(self, total: int, done: int, on_bytes: OnBytes) -> None:
        self.total, self.done = total, done
        self.is_stopped = False
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._looked = done

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            self.report()

    def should_look_at_disk(self) -> bool:
        """After each further 64 MiB, or one percent."""
        with self._lock:
            if abs(self.done - self._looked) < min(64 << 20, self.total // 100):
                return False
            self._looked = self.done
            return True

    def report(self) -> None:
        self._on_bytes(min(self.done, self.total), self.total)

    def finish(self) -> None:
        self.done = self.total
        self.report()
