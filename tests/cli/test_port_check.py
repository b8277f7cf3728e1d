"""Ports that are taken, all at once, with their holders."""

import os
import socket
import sys
from pathlib import Path

import pytest

from quarterdeck.cli.port_check import holder_of, problems


def test_every_port_that_is_taken_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first, second = one.getsockname()[1], two.getsockname()[1]
        found = problems(
            {
                "QUARTERDECK_PORT": ("127.0.0.1", first),
                "QUARTERDECK_WORKER_PORT": ("127.0.0.1", second),
                "QUARTERDECK_ENGINE_PORT": ("127.0.0.1", second),
            }
        )
    assert found[0].startswith(f"127.0.0.1:{first} is already in use by ")
    assert f"(pid {os.getpid()})" in found[0]
    assert found[0].endswith(": set QUARTERDECK_PORT (or --port)")
    assert found[1].endswith(": set QUARTERDECK_WORKER_PORT")
    expected = f"QUARTERDECK_WORKER_PORT and QUARTERDECK_ENGINE_PORT are both {second}: set one of them to another port"
    assert found[2] == expected


def test_a_free_port_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert holder_of(port) is None
    assert problems({"QUARTERDECK_PORT": ("127.0.0.1", port)}) == []


@pytest.mark.parametrize("has_main_thread", [True, False])
def test_a_port_of_a_process_that_is_ending_is_waited_for(tmp_path: Path, has_main_thread: bool) -> None:
    """Its memory is gone, and with it its command line, then its main thread; its sockets are still open."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    proc = proc_with(tmp_path, port, os.geteuid())
    if has_main_thread:
        (proc / "77" / "fd").mkdir(parents=True)
        (proc / "77" / "fd" / "3").symlink_to("socket:[4711]")
        (proc / "77" / "cmdline").write_bytes(b"")
    assert problems({"PORT": ("127.0.0.1", port)}, proc=proc, pause=lambda _: server.close()) == []


def test_a_port_of_another_users_process_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        proc = proc_with(tmp_path, port, os.geteuid() + 1)
        [found] = problems({"PORT": ("127.0.0.1", port)}, proc=proc, pause=lambda _: pytest.fail("it waits"))
    assert found == f"127.0.0.1:{port} is already in use: set PORT"


def proc_with(folder: Path, port: int, uid: int) -> Path:
    """A /proc with one socket that listens on the port, of inode 4711."""
    (folder / "net").mkdir()
    (folder / "net" / "tcp").write_text(f"head\n0: 0100007F:{port:04X} 00000000:0000 0A 0:0 0:0 0 {uid} 0 4711\n")
    return folder


def test_a_machine_without_proc_names_no_holder(tmp_path: Path) -> None:
    assert holder_of(1, tmp_path) is None


def test_an_address_that_is_not_this_machines_is_the_hosts_problem() -> None:
    [found] = problems({"QUARTERDECK_PORT": ("192.0.2.1", 1)})
    assert found.endswith("set QUARTERDECK_HOST to an address of this machine"), (found, sys.platform)
