"""The certificate of our own server."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from quarterdeck.net.tls import CertificateError, CertificateFiles, ServerCertificate


def make(folder: Path, name: str) -> CertificateFiles:
    """A self-signed certificate with this common name."""
    files = CertificateFiles(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    more = ["-days", "2", "-subj", f"/CN={name}", "-out", str(files.chain), "-keyout", str(files.key)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return files


async def served(port: int) -> bytes:
    """The certificate that a new connection gets, without its name being verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


def der(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.chain.read_text())


async def test_a_new_certificate_serves_the_next_connection_and_open_ones_stay(tmp_path: Path) -> None:
    files, other = make(tmp_path, "first"), make(tmp_path, "second")
    first = der(files)
    certificate = ServerCertificate(files)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificate.context) as server:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname = False
        trust.load_verify_locations(files.chain)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        shutil.copy(other.chain, files.chain)
        certificate.refresh()  # the key is still the former one: nothing changes
        assert await served(port) == first
        shutil.copy(other.key, files.key)
        certificate.refresh()
        assert await served(port) == der(other)
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        await writer.wait_closed()


def test_what_cannot_be_used_is_refused_with_the_file_and_the_reason(tmp_path: Path) -> None:
    files, other = make(tmp_path, "one"), make(tmp_path, "two")
    with pytest.raises(CertificateError, match="key values mismatch"):
        CertificateFiles(files.chain, other.key).load()
    with pytest.raises(CertificateError, match=r"cannot read .*absent\.pem: No such file"):
        CertificateFiles(tmp_path / "absent.pem", files.key).load()
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(CertificateError, match="cannot use"):
        CertificateFiles(tmp_path / "text", files.key).load()


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    files = make(tmp_path, "one")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(CertificateError, match="passphrase"):
        CertificateFiles(files.chain, locked).load()


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    files = make(tmp_path, "one")
    certificate = ServerCertificate(files)
    before = certificate._current
    certificate.refresh()
    assert certificate._current is before
