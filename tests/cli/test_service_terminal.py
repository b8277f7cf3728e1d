"""`up` under systemd: what it notifies, and that the journal gets no key."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.cli.running import free_ports
from tests.servers import short_folder, wait_until

from quarterdeck.cli import service_terminal


def test_the_stream_of_the_journal_is_recognised_by_its_inode(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as out:
        status = os.fstat(out.fileno())
        mine = f"{status.st_dev}:{status.st_ino}"
        assert service_terminal.is_journal({"JOURNAL_STREAM": mine}, out)
        assert not service_terminal.is_journal({"JOURNAL_STREAM": "1:2"}, out)  # a terminal started from a service
        assert not service_terminal.is_journal({}, out)


def test_up_notifies_ready_and_stopping_and_prints_no_key_into_the_journal(tmp_path: Path) -> None:
    folder = short_folder()
    journal = folder / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, journal.open("w") as out:
        notify.bind(str(folder / "notify"))
        notify.settimeout(100)
        status = os.fstat(out.fileno())
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
        ports = dict(zip(("PORT", "WORKER_PORT", "ENGINE_PORT"), map(str, free_ports(3)), strict=True))
        environ = {
            **kept,
            "QUARTERDECK_STATE": str(folder / "state"),
            **{f"QUARTERDECK_{name}": port for name, port in ports.items()},
            "NOTIFY_SOCKET": str(folder / "notify"),
            "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
        }
        command = [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", "sim"]
        messages: list[str] = []

        def read() -> None:
            while (message := notify.recv(4096).decode()) != "end":
                messages.append(message)

        reader = threading.Thread(target=read)
        reader.start()
        with subprocess.Popen(command, env=environ, stdout=out, stderr=subprocess.STDOUT) as process:
            wait_until(lambda: "Press Ctrl-C" in journal.read_text(), seconds=100, what=journal.read_text)
            assert "READY=1" in messages
            assert any(message.startswith("STATUS=gateway: up") for message in messages)
            process.terminate()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", str(folder / "notify"))
        reader.join()
        assert "STOPPING=1" in messages
        text = journal.read_text()
        credentials = (folder / "state" / "credentials").read_text()
    assert process.returncode == 0
    assert "Base URL" in text
    for line in credentials.splitlines():
        if "_key" in line:
            assert line.split('"')[1] not in text
