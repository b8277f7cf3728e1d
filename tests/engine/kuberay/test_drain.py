"""The preStop hook of a Ray cluster's pods."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from quarterdeck.engine.kuberay import drain

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 1
   1: 1C00F40A:7531 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 65532        0 2
   2: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 3
"""


class Clock:
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_it_waits_until_requests_are_done_but_never_longer_than_asked() -> None:
    clock = Clock()
    counts = iter([5] * 40 + [0] * 1000)
    assert drain.wait_until_idle(lambda: next(counts), 60, now=clock.now, sleep=clock.sleep)
    assert 20 <= clock.time < 22
    clock = Clock()
    assert not drain.wait_until_idle(lambda: 1, 30, now=clock.now, sleep=clock.sleep)
    assert 30 <= clock.time < 31


def test_an_idle_pod_waits_until_gateways_have_noticed() -> None:
    clock = Clock()
    assert drain.wait_until_idle(lambda: 0, 60, now=clock.now, sleep=clock.sleep)
    assert drain.MIN_SECONDS <= clock.time < drain.MIN_SECONDS + 1


def test_one_idle_moment_between_two_requests_is_not_the_end() -> None:
    clock = Clock()
    counts = iter([1, 0] * 20 + [0, 0])
    assert drain.wait_until_idle(lambda: next(counts), 60, now=clock.now, sleep=clock.sleep)
    assert clock.time >= 20


def test_only_listening_ports_of_replicas_are_asked() -> None:
    assert drain.listening(TABLE) == [30000]


@pytest.fixture
def metrics_port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b'vllm:num_requests_running{model_name="m"} 2.0\nvllm:num_requests_waiting{model_name="m"} 1.0\n'
                b'vllm:num_requests_waiting_by_reason{model_name="m"} 9.0\n'
            )

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_running_and_waiting_requests_are_counted_and_a_closed_port_has_none(metrics_port: int) -> None:
    assert drain.active_here([metrics_port]) == 3
    assert drain.active_here([1]) == 0


def test_a_door_that_never_answered_may_still_have_requests() -> None:
    assert drain.ActiveInCluster("http://127.0.0.1:1/drain")() == 1


def test_a_door_that_has_ended_after_its_answer_had_found_the_cluster_idle() -> None:
    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"active": 2}')

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Door)
    active = drain.ActiveInCluster(f"http://127.0.0.1:{server.server_port}/drain")
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert active() == 2
    thread.join()
    server.server_close()
    assert active() == 0
