"""moto's server of S3's protocol for tests: a process with an environment of its own."""

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.platform import free_port
from tests.servers import ServerProcess, short_folder

ROOT = Path(__file__).parents[1]
BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class MotoServer(ServerProcess):
    """An S3 with one bucket. Its objects are in its memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.log = folder / "moto.log"
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        python = str(ROOT / ".envs/s3/bin/python")
        return [python, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self.port)]

    def answers(self) -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(self.url + "/moto-api/", timeout=2).status == 200)
        return False

    def start(self) -> None:
        """Builds its environment on first use, which takes minutes."""
        subprocess.run([sys.executable, "environments/make.py", "s3"], cwd=ROOT, check=True, capture_output=True)
        super().start()
        self.read(f"/{BUCKET}", "PUT")

    def read(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(self.url + path, method=method)
        return str(urllib.request.urlopen(request, timeout=10).read().decode())


@contextmanager
def running_moto() -> Iterator[MotoServer]:
    folder = short_folder()
    made = MotoServer(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
