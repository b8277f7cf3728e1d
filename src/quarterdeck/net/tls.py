"""TLS of our own server: its certificate, read again when the files change.

A handshake takes the context that is current at its beginning; open connections keep theirs. So a renewed certificate
serves the next connection, and none is dropped. A certificate that can't be read does not replace one that works.
"""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""Between two looks at the files. Renewals are days ahead of the expiry."""
HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake: a connection that does not complete it counts against no other limit."""


class CertificateError(ValueError):
    """The certificate or its key can't be used; the message has the file and the reason."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the chain, the server's certificate first, and its private key without a passphrase."""

    chain: Path
    key: Path

    def load(self) -> ssl.SSLContext:
        """A context of a server with this certificate. Raises CertificateError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for file in (self.chain, self.key):
            try:
                file.open("rb").close()
            except OSError as error:
                raise CertificateError(f"cannot read {file}: {error.strerror}") from None
        try:
            context.load_cert_chain(self.chain, self.key, password=_no_passphrase)
        except ssl.SSLError as error:
            reason = (error.reason or "it is no PEM file").replace("_", " ").lower()
            raise CertificateError(f"cannot use {self.chain} with {self.key}: {reason}") from None
        except (OSError, ValueError) as error:
            raise CertificateError(f"cannot use {self.chain} with {self.key}: {error}") from None
        return context

    def version(self) -> tuple[object, ...]:
        """Changes when a file is written or replaced."""
        found: list[object] = []
        for file in (self.chain, self.key):
            try:
                status = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)


def _no_passphrase() -> bytes:
    raise ValueError("the key has a passphrase; a server needs one without")


class ServerCertificate:
    """The certificate that new connections get. Raises CertificateError where it can't be loaded at first."""

    def __init__(self, files: CertificateFiles, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._files = files
        self._poll_seconds = poll_seconds
        self._seen = files.version()
        self._current = files.load()
        self.context = files.load()
        """For the server. It hands each handshake to the current context."""
        self.context.sni_callback = self._choose

    async def watch(self) -> None:
        """Read the files again when they change, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            self.refresh()

    def refresh(self) -> None:
        """Read the files if they changed. One that was written without the other fails, and is read again with it."""
        if (now := self._files.version()) == self._seen:
            return
        self._seen = now
        try:
            self._current = self._files.load()
        except CertificateError as error:
            log.warning("the certificate was not reloaded, the former one stays: %s", error)
        else:
            log.info("certificate reloaded", extra={"file": str(self._files.chain)})

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current
