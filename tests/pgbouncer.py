"""PgBouncer in front of a test's PostgreSQL: from PATH, or Debian's package unpacked in the user's cache."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.debian_packages import unpacked
from tests.servers import NOBODY, PostgresServer, ServerProcess, short_folder

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class PgBouncer(ServerProcess):
    """Transaction mode, with fewer server connections than clients."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        super().__init__()
        self.folder = folder
        self.log = folder / "pgbouncer.log"
        self._library_path = ""
        if (found := shutil.which("pgbouncer")) is not None:
            self._binary = Path(found)
        else:
            root = unpacked(PACKAGES, "usr/sbin/pgbouncer")
            self._binary = folder / "pgbouncer"
            shutil.copy(root / "usr/sbin/pgbouncer", self._binary)
            shutil.copytree(root / LIBRARIES, folder / "lib", ignore=shutil.ignore_patterns("pkgconfig", "*.a"))
            self._library_path = str(folder / "lib")
        if os.geteuid() == 0:
            self.user = NOBODY  # it refuses to run as root
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
            os.chown(folder, NOBODY, NOBODY)
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={postgres.data} user=postgres\n"
            "[pgbouncer]\n"
            f"unix_socket_dir = {folder}\n"
            "listen_port = 6432\n"
            "auth_type = any\n"
            "pool_mode = transaction\n"
            "default_pool_size = 3\n"
            "max_client_conn = 100\n"
        )
        (folder / "pgbouncer.ini").chmod(0o644)

    def command(self) -> list[str]:
        return ["env", f"LD_LIBRARY_PATH={self._library_path}", str(self._binary), str(self.folder / "pgbouncer.ini")]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.folder / ".s.PGSQL.6432")) == 0

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}&port=6432"


@contextmanager
def running(postgres: PostgresServer) -> Iterator[PgBouncer]:
    if shutil.which("pgbouncer") is None and shutil.which("apt-get") is None:
        pytest.skip("there is no pgbouncer, and no apt-get to download it")
    folder = short_folder()
    bouncer = PgBouncer(folder, postgres)
    try:
        bouncer.start()
        yield bouncer
    finally:
        bouncer.stop()
        shutil.rmtree(folder, ignore_errors=True)
