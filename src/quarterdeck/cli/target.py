"""The platform that a command talks to: the one on this machine, one at a URL, or a release in a cluster.

The options stand before the command (`quarterdeck --context prod keys list`) and are kept in click's `meta`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from quarterdeck.cli import credentials, installation
from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.kubectl import Kubectl
from quarterdeck.settings.environment import Environment

META = "quarterdeck.target"
_CREDENTIALS = "quarterdeck.credentials"


@dataclass(frozen=True, slots=True)
class Target:
    """The options that name a platform. All None: the platform on this machine."""

    context: str | None = None
    namespace: str | None = None
    release: str | None = None
    url: str | None = None
    key_file: Path | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether a release in a cluster is meant."""
        return self.url is None and any((self.context, self.namespace, self.release))

    @property
    def is_local(self) -> bool:
        return self.url is None and not self.is_cluster

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.context, self.namespace)

    def check(self) -> None:
        """Raises UsageError for options that contradict each other, or a URL that is none."""
        if self.url is not None and any((self.context, self.namespace, self.release)):
            raise click.UsageError("--url names a gateway: --context, --namespace and --release do not go with it")
        if self.key_file is not None and self.is_local:
            raise click.UsageError("--key-file needs --url, or --context, --namespace or --release")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise click.UsageError(f"--url must be a URL such as https://llm.example.com, not '{self.url}'")


def current() -> Target:
    """The options of the running command line."""
    context = click.get_current_context(silent=True)
    found = context.meta.get(META) if context else None
    return found if isinstance(found, Target) else Target()


def resolve() -> Credentials:
    """Address and keys of the platform. A port-forward into a cluster lasts until the command ends. Raises
    ClickException."""
    target = current()
    if target.is_local:
        try:
            return credentials.read(Environment.read().state)
        except (credentials.CredentialsError, ValueError) as error:
            raise click.ClickException(str(error)) from None
    context = click.get_current_context().find_root()
    if _CREDENTIALS not in context.meta:
        context.meta[_CREDENTIALS] = _remote(target, context)
    found: Credentials = context.meta[_CREDENTIALS]
    return found


def _remote(target: Target, context: click.Context) -> Credentials:
    if target.url is not None:
        url = target.url.rstrip("/").removesuffix("/v1")
        if target.key_file is None:
            raise click.UsageError("--url needs --key-file FILE with a key of that platform")
        key = _read_key(target.key_file)
        return Credentials(f"{url}/v1", key, key)
    found = installation.find(target.kubectl, target.release)
    kubectl = target.kubectl.within(found.namespace)
    key = _read_key(target.key_file) if target.key_file else installation.read_key(kubectl, found)
    url = context.with_resource(kubectl.forwarded(f"service/{found.service}", found.port))
    return Credentials(f"{url}/v1", key, key)


def _read_key(file: Path) -> str:
    """The key in a file, or on standard input for `-`. Raises ClickException."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from None
    key = text.strip()
    if not key or not key.isascii() or any(char.isspace() for char in key):
        raise click.ClickException(f"{file} does not hold one key")
    return key
