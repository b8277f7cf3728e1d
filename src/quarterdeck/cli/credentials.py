"""This user's way in to the platform on this machine: `<state>/credentials`, mode 0600, as a kubeconfig is.

Written once by `up`, read by the other commands. It is the only place that holds the keys: the server has digests.
"""

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from quarterdeck import ids

FILENAME = "credentials"
_HEADER = "# Quarterdeck's keys of this user, for the platform on this machine. Secret: keep it to yourself (0600).\n"


class CredentialsError(Exception):
    """The file is not there or can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to speak to the platform."""

    base_url: str
    """With `/v1`, as OpenAI clients want it."""
    api_key: str
    admin_key: str

    @property
    def gateway_url(self) -> str:
        """Without `/v1`: `/admin`, `/readyz` and `/healthz` stand there."""
        return self.base_url.removesuffix("/v1")

    def __repr__(self) -> str:
        return f"Credentials(base_url={self.base_url!r})"


def read(state: Path) -> Credentials:
    """Raises CredentialsError."""
    file = state / FILENAME
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        return Credentials(str(data["base_url"]), str(data["api_key"]), str(data["admin_key"]))
    except FileNotFoundError:
        raise CredentialsError(f"{file} is not there yet: `quarterdeck up` writes it") from None
    except (OSError, ValueError, KeyError) as error:
        raise CredentialsError(
            f"{file} can't be read ({error}): remove it and `quarterdeck up` makes a new one"
        ) from None


def ensure(state: Path, base_url: str) -> tuple[Credentials, bool]:
    """The user's credentials, made where there are none, with the address that holds now; and whether they are new."""
    is_new = not (state / FILENAME).exists()
    old = Credentials(base_url, ids.api_key(), ids.api_key()) if is_new else read(state)
    credentials = replace(old, base_url=base_url)
    if is_new or credentials != old:
        _write(state / FILENAME, credentials)
    return credentials, is_new


def _write(file: Path, credentials: Credentials) -> None:
    """Whole or not at all, and never readable for others, not even for a moment."""
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
