"""A worker waits for its head."""

import socket
from collections.abc import Iterator

import pytest

from quarterdeck.engine.kuberay.wait import is_listening, main, wait


def test_it_returns_as_soon_as_the_head_listens() -> None:
    answers = iter([False, False, True])
    slept: list[float] = []
    assert wait("head", 6379, 600, sleep=slept.append, is_up=lambda host, port: next(answers))
    assert len(slept) == 2


def test_it_gives_up_in_the_end() -> None:
    times: Iterator[float] = iter([0.0, 10.0, 601.0])
    assert not wait("head", 6379, 600, now=lambda: next(times), sleep=lambda _: None, is_up=lambda host, port: False)


def test_a_head_is_up_when_its_port_is_and_a_name_that_is_unknown_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_listening("127.0.0.1", port)
    assert not is_listening("127.0.0.1", port)
    assert not is_listening("head.invalid", 6379)


def test_a_pod_that_kuberay_did_not_start_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({}) == 2
    assert "FQ_RAY_IP" in capsys.readouterr().err
