"""The client of the Kubernetes API: TLS with the cluster's own authority, and its rotation."""

import dataclasses
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.net.upstream import Peer, Upstream

from quarterdeck.kube.access import ClusterAccess, Source
from quarterdeck.kube.api import KubeApi, KubeError, Metadata


class Thing(msgspec.Struct, frozen=True):
    metadata: Metadata


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that is its own authority, and a server's context with it."""
    path, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key)
    return path, context


async def answer(peer: Peer) -> None:
    body = b'{"metadata": {"name": "a"}}'
    while True:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def test_the_clusters_authority_is_trusted_and_no_other(tmp_path: Path) -> None:
    (ours, context), (other, _) = certificate(tmp_path, "ours"), certificate(tmp_path, "other")
    async with Upstream(answer, tls=context) as server:
        access = ClusterAccess(server.url, "ns", ca=Source(ours))
        api, stranger = KubeApi(access), KubeApi(dataclasses.replace(access, ca=Source(other)))
        assert (await api.get("/thing", Thing)).metadata.name == "a"
        with pytest.raises(KubeError, match="does not answer"):
            await stranger.get("/thing", Thing)
        await api.close()
        await stranger.close()


async def test_a_replaced_authority_is_trusted_from_the_next_request_on(tmp_path: Path) -> None:
    (ours, context), (former, _) = certificate(tmp_path, "ours"), certificate(tmp_path, "former")
    mounted = tmp_path / "ca.crt"
    mounted.write_bytes(former.read_bytes())
    async with Upstream(answer, tls=context) as server:
        api = KubeApi(ClusterAccess(server.url, "ns", ca=Source(mounted)))
        with pytest.raises(KubeError):
            await api.get("/thing", Thing)
        ours.replace(mounted)
        assert (await api.get("/thing", Thing)).metadata.name == "a"
        mounted.write_text("nonsense")
        with pytest.raises(KubeError, match="credentials"):
            await api.get("/thing", Thing)
        await api.close()


async def test_a_client_certificate_is_presented(tmp_path: Path) -> None:
    path, context = certificate(tmp_path, "ours")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(path)
    own = (Source(data=path.read_bytes()), Source(data=path.with_suffix(".key").read_bytes()))
    async with Upstream(answer, tls=context) as server:
        api = KubeApi(ClusterAccess(server.url, "ns", ca=Source(path), certificate=own))
        assert (await api.get("/thing", Thing)).metadata.name == "a"
        await api.close()
