"""Fixtures of the transport's tests, and the loops that they run on."""

import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.loops import ASYNCIO, BOTH, UVLOOP, Loops

from quarterdeck.net.http_client import HttpClient


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """Clients that read from transports run on both loops: the gateway's is uvloop, the worker's is asyncio's own."""
    if item.path.name in ("test_http_client.py", "test_http_connection.py", "test_proxies.py", "test_redis.py"):
        return BOTH
    return UVLOOP if item.path.name == "test_write_batching.py" else ASYNCIO


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient(sweep_seconds=0.01)
    yield subject
    await subject.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A key and a certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(made), "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    yield key, made


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """A server's context with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context
