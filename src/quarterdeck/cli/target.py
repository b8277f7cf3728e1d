"""The platform that a command talks to: the one on this machine, one at a URL, or a release in a cluster.

In this order: the options of the command line, QUARTERDECK_URL or QUARTERDECK_CONTEXT, the context in use, the platform
on this machine, and where there is none, OPENAI_BASE_URL. A key is never sent to a URL that it was not given for: a
variable's key goes to that variable's URL only.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import click

from quarterdeck.cli import contexts, credentials, installation
from quarterdeck.cli.contexts import Contexts
from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.kubectl import Kubectl
from quarterdeck.cli.output import reason_of
from quarterdeck.settings.environment import Environment

META = "quarterdeck.target"
_CHOSEN = "quarterdeck.target.chosen"
_CREDENTIALS = "quarterdeck.credentials"
NO_KEY = "--key, --key-file FILE, QUARTERDECK_KEY, or a saved context (`quarterdeck context set`)"


@dataclass(frozen=True, slots=True)
class Target:
    """The options that name a platform. All None: the platform on this machine."""

    context: str | None = None
    namespace: str | None = None
    release: str | None = None
    url: str | None = None
    key_file: Path | None = None
    key: str | None = field(default=None, repr=False)
    origin: str | None = None
    """Where the URL comes from, if not from `--url`: shown when it does not answer."""

    @property
    def is_cluster(self) -> bool:
        """Whether a release in a cluster is meant."""
        return self.url is None and any((self.context, self.namespace, self.release))

    @property
    def is_local(self) -> bool:
        return self.url is None and not self.is_cluster

    @property
    def from_where(self) -> str:
        """For messages: ` (context prod)`."""
        return f" ({self.origin})" if self.origin else ""

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.context, self.namespace)

    def check(self) -> None:
        """Raises UsageError for options that contradict each other, or a URL that is none."""
        if self.url is not None and any((self.context, self.namespace, self.release)):
            raise click.UsageError("--url names a gateway: --context, --namespace and --release do not go with it")
        if self.key is not None and self.key_file is not None:
            raise click.UsageError("--key and --key-file exclude each other")
        if self.url is not None:
            check_url(self.url, self.origin or "--url")
        if self.key is not None:
            check_key(self.key, self.origin or "--key")


def choose(options: Target, variables: Mapping[str, str], saved: Contexts, *, has_local: bool) -> Target:
    """The platform that is meant. `has_local`: this machine has credentials of one. Raises ContextsError."""
    own_key = options.key is not None or options.key_file is not None
    url, key = _text(variables, "QUARTERDECK_URL"), _text(variables, "QUARTERDECK_KEY")
    if options.url is not None:
        return options if own_key else replace(options, key=_key_for(options.url, variables, saved))
    name = options.context or (None if options.is_cluster or url else _text(variables, "QUARTERDECK_CONTEXT"))
    if options.is_cluster and options.context not in (contexts.LOCAL, *saved.named):
        return options  # of a kubeconfig
    if name is None and url is not None:
        return replace(options, url=url, key=options.key if own_key else key, origin="QUARTERDECK_URL")
    if name is not None and (options.namespace or options.release):
        return options
    if name is None:
        name = saved.current
    if name is not None and name != contexts.LOCAL:
        found = saved.find(name)
        chosen_key = options.key if own_key else found.key
        return replace(options, context=None, url=found.url, key=chosen_key, origin=f"context {name}")
    openai_url, openai_key = _text(variables, "OPENAI_BASE_URL"), _text(variables, "OPENAI_API_KEY")
    if name is None and not has_local and openai_url and (openai_key or own_key):
        return replace(options, url=openai_url, key=options.key if own_key else openai_key, origin="OPENAI_BASE_URL")
    return replace(options, context=None, key=options.key if own_key else key)


def _key_for(url: str, variables: Mapping[str, str], saved: Contexts) -> str | None:
    """The key that belongs to a URL. None: there is none."""
    named_url, key = _text(variables, "QUARTERDECK_URL"), _text(variables, "QUARTERDECK_KEY")
    if key is not None and (named_url is None or _root(named_url) == _root(url)):
        return key
    for context in saved.named.values():
        if _root(context.url) == _root(url):
            return context.key
    openai_url = _text(variables, "OPENAI_BASE_URL")
    is_openai = openai_url is not None and _root(openai_url) == _root(url)
    return _text(variables, "OPENAI_API_KEY") if is_openai else None


def current() -> Target:
    """The platform of the running command line. Raises ClickException."""
    context = click.get_current_context(silent=True)
    if context is None:
        return Target()
    root = context.find_root()
    if _CHOSEN not in root.meta:
        options = root.meta.get(META, Target())
        try:
            environment = Environment.read()
            variables = environment.variables
            saved = contexts.read(contexts.path_of(variables))
            has_local = (environment.state / credentials.FILENAME).exists()
            chosen = choose(options, variables, saved, has_local=has_local)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        chosen.check()
        root.meta[_CHOSEN] = chosen
    found: Target = root.meta[_CHOSEN]
    return found


def resolve(*, needs_key: bool = True) -> Credentials:
    """Address and keys of the platform. A port-forward into a cluster lasts until the command ends. Raises
    ClickException. Without `needs_key`, the key may be empty."""
    target = current()
    if target.is_local:
        key = _key_of(target)
        try:
            found = credentials.read(Environment.read().state)
        except (credentials.CredentialsError, ValueError) as error:
            raise click.ClickException(f"{error}, or name one elsewhere (--url, `quarterdeck context`)") from None
        return found if key is None else replace(found, api_key=key, admin_key=key)
    context = click.get_current_context().find_root()
    if _CREDENTIALS not in context.meta:
        context.meta[_CREDENTIALS] = _remote(target, context)
    known: Credentials = context.meta[_CREDENTIALS]
    if needs_key and not known.api_key:
        raise click.UsageError(f"{known.gateway_url} needs a key: {NO_KEY}")
    return known


def _remote(target: Target, context: click.Context) -> Credentials:
    key = _key_of(target)
    if target.url is not None:
        return Credentials(f"{_root(target.url)}/v1", key or "", key or "")
    found = installation.find(target.kubectl, target.release)
    kubectl = target.kubectl.within(found.namespace)
    key = key or installation.read_key(kubectl, found)
    url = context.with_resource(kubectl.forwarded(f"service/{found.service}", found.port))
    return Credentials(f"{url}/v1", key, key)


def _key_of(target: Target) -> str | None:
    return read_key(target.key_file) if target.key_file else target.key


def read_key(file: Path) -> str:
    """The key in a file, or on standard input for `-`. Raises ClickException."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {file}: {reason_of(error)}") from None
    key = text.strip()
    if not is_key(key):
        raise click.ClickException(f"{file} does not hold one key")
    return key


def is_key(text: str) -> bool:
    """Whether it can stand in an Authorization header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def check_key(key: str, origin: str) -> None:
    """Raises UsageError, which repeats nothing of it."""
    if not is_key(key):
        raise click.UsageError(f"{origin} is not a key: it is empty, or has spaces or characters that are not ASCII")


def check_url(url: str, origin: str) -> None:
    """Raises UsageError."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url or any(char.isspace() for char in url):
        raise click.UsageError(f"{origin} must be a URL such as https://llm.example.com, not '{url}'")


def _root(url: str) -> str:
    """Without `/v1`."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _text(variables: Mapping[str, str], name: str) -> str | None:
    return variables.get(name, "").strip() or None
