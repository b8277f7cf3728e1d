"""This user's credentials for the platform on this machine: `<state>/credentials`, mode 0600, like a kubeconfig.

`up` writes the file, other commands read it. Only this file holds the keys; the server stores digests.
"""

import os
import ssl
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from quarterdeck import ids
from quarterdeck.cli.output import reason_of

FILENAME = "credentials"
CERTIFICATE = "gateway-certificate.pem"
"""A link to the certificate that the gateway on this machine serves with, which this user's commands trust."""
_HEADER = "# This user's Quarterdeck keys for the platform on this machine. Secret: do not share (mode 0600).\n"


class CredentialsError(Exception):
    """The file is missing or invalid; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Base URL and keys of the platform."""

    base_url: str
    """With `/v1`, as OpenAI clients expect."""
    api_key: str
    admin_key: str

    @property
    def gateway_url(self) -> str:
        """Without `/v1`; the base of `/admin`, `/readyz` and `/healthz`."""
        return self.base_url.removesuffix("/v1")

    def __repr__(self) -> str:
        return f"Credentials(base_url={self.base_url!r})"


def read(state: Path) -> Credentials:
    """Read the file. Raises CredentialsError."""
    file = state / FILENAME
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        return Credentials(str(data["base_url"]), str(data["api_key"]), str(data["admin_key"]))
    except FileNotFoundError:
        raise CredentialsError(f"{file} does not exist: start the platform with `quarterdeck up`") from None
    except (OSError, ValueError, KeyError) as error:
        raise CredentialsError(
            f"cannot read {file} ({reason_of(error)}): remove it and run `quarterdeck up` to create a new one"
        ) from None


def ensure(state: Path, base_url: str) -> tuple[Credentials, bool]:
    """Return the credentials with the current base URL, creating them if missing, and whether they are new."""
    is_new = not (state / FILENAME).exists()
    old = Credentials(base_url, ids.api_key(), ids.api_key()) if is_new else read(state)
    credentials = replace(old, base_url=base_url)
    if is_new or credentials != old:
        _write(state / FILENAME, credentials)
    return credentials, is_new


def link_certificate(state: Path, certificate: Path | None) -> None:
    """Let this user's commands trust the gateway's certificate. None: it serves without."""
    link = state / CERTIFICATE
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    if certificate is None:
        link.unlink(missing_ok=True)
        return
    fresh.symlink_to(certificate)
    fresh.replace(link)


def certificate_context(state: Path) -> ssl.SSLContext:
    """For connections to the gateway on this machine: its own certificate is trusted, and no other.

    The name in it is not compared: it is the public one, and commands connect to this machine. Raises CredentialsError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(state / CERTIFICATE)
    except OSError as error:
        raise CredentialsError(f"cannot read {state / CERTIFICATE}: {error.strerror or error}") from None
    return context


def _write(file: Path, credentials: Credentials) -> None:
    """Write atomically, and never readable by others."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(_HEADER)
        for name in ("base_url", "api_key", "admin_key"):
            out.write(f'{name} = "{getattr(credentials, name)}"\n')
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
