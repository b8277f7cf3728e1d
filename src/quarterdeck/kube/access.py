"""Where the Kubernetes API is and how a process proves who it is: a pod's service account, or a kubeconfig.

Nothing is cached: kubelet replaces a service account's token every hour and its CA when the cluster's is rotated, so
both are read for each use.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.net.http_origin import Origin
from quarterdeck.settings.files import read_file

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_FILE_BYTES = 1024 * 1024


class AccessError(ValueError):
    """No way to the Kubernetes API is configured, or it is malformed."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or the same as base64 in a kubeconfig."""

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Raises OSError."""
        return self.data if self.path is None else read_file(self.path, MAX_FILE_BYTES)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """An API server, a namespace and credentials."""

    url: str
    namespace: str
    ca: Source | None = None
    """None: the system's authorities."""
    token: Source | None = None
    certificate: tuple[Source, Source] | None = None
    """A client certificate and its key."""
    is_verified: bool = True
    """False: any certificate of the server is accepted (`insecure-skip-tls-verify` of a kubeconfig)."""

    @property
    def origin(self) -> Origin:
        return Origin.parse(self.url, "never")

    def authorization(self) -> str | None:
        """The header's value, with the token as it is now. Raises OSError."""
        if self.token is None:
            return None
        return f"Bearer {self.token.read().decode('ascii', 'replace').strip()}"

    def stamp(self) -> tuple[int, int]:
        """Changes when the CA's file is replaced."""
        if self.ca is None or self.ca.path is None:
            return (0, 0)
        try:
            found = os.stat(self.ca.path)
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def tls(self) -> ssl.SSLContext | None:
        """None: the API is served without TLS (a local proxy). Raises OSError and ValueError."""
        if not self.origin.tls:
            return None
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.create_default_context(cadata=self.ca.read().decode("ascii", "replace"))
        # Authorities of clusters are often made without the key usage that Python 3.13 asks for.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", ssl.VerifyFlags.VERIFY_DEFAULT)
        if not self.is_verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate is not None:
            with ExitStack() as files:
                certificate, key = (_as_path(each, files) for each in self.certificate)
                context.load_cert_chain(certificate, key)
        return context


def _as_path(source: Source, files: ExitStack) -> Path:
    """OpenSSL's chains are loaded from files only."""
    if source.path is not None:
        return source.path
    file = files.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115  # closed by the stack; mode 0600
    file.write(source.read())
    file.flush()
    return Path(file.name)


def find_access(
    variables: Mapping[str, str], namespace: str | None, *, service_account: Path = SERVICE_ACCOUNT
) -> ClusterAccess:
    """The pod's own access; outside a cluster that of KUBECONFIG or ~/.kube/config. `namespace`: instead of the one
    that goes with the access. Raises AccessError."""
    host, port = variables.get("KUBERNETES_SERVICE_HOST"), variables.get("KUBERNETES_SERVICE_PORT", "443")
    if host and (service_account / "token").exists():
        return _of_pod(host, port, service_account, namespace)
    path = variables.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    path = path.split(os.pathsep)[0]
    if not os.path.exists(path):
        if host:
            raise AccessError(
                f"no service account token in {service_account}: set automountServiceAccountToken in the pod's spec"
            )
        raise AccessError(f"no Kubernetes API is known: this is no pod, and there is no kubeconfig {path}")
    return of_kubeconfig(Path(path), namespace)


def _of_pod(host: str, port: str, folder: Path, namespace: str | None) -> ClusterAccess:
    if not port.isdecimal():
        raise AccessError(f"KUBERNETES_SERVICE_PORT must be a port number, not {port!r}")
    if namespace is None:
        try:
            namespace = read_file(folder / "namespace", 1024).decode().strip()
        except OSError as error:
            raise AccessError(f"the namespace is unknown: {error}") from error
    authority = f"[{host}]" if ":" in host else host
    return ClusterAccess(
        f"https://{authority}:{port}",
        namespace,
        ca=Source(folder / "ca.crt"),
        token=Source(folder / "token"),
    )


def of_kubeconfig(path: Path, namespace: str | None = None) -> ClusterAccess:
    """The current context of a kubeconfig: with a token or a client certificate. Raises AccessError."""
    try:
        document = yaml.safe_load(read_file(path, MAX_FILE_BYTES))
        context = _entry(document, "contexts", document["current-context"], "context")
        cluster = _entry(document, "clusters", context["cluster"], "cluster")
        user = _entry(document, "users", context["user"], "user") if context.get("user") else {}
        certificate, key = _bytes(user, "client-certificate", path), _bytes(user, "client-key", path)
        token = _bytes(user, "token", path, is_file="tokenFile")
        if token is None and certificate is None and ("exec" in user or "auth-provider" in user):
            raise AccessError(f"{path}: logins by `exec` and `auth-provider` are not supported; use a token")
        return ClusterAccess(
            str(cluster["server"]),
            namespace or context.get("namespace") or "default",
            ca=_bytes(cluster, "certificate-authority", path),
            token=token,
            certificate=(certificate, key) if certificate is not None and key is not None else None,
            is_verified=not cluster.get("insecure-skip-tls-verify", False),
        )
    except AccessError:
        raise
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise AccessError(f"can't read the kubeconfig {path}: {error}") from error


def _entry(document: Any, list_name: str, name: str, member: str) -> Any:
    for each in document[list_name]:
        if each["name"] == name:
            return each[member]
    raise KeyError(f"no {member} named {name!r}")


def _bytes(entry: Any, name: str, config: Path, *, is_file: str | None = None) -> Source | None:
    """`<name>-data` as base64, `<name>` as a path; a token stands for itself, and `tokenFile` names its file."""
    if is_file is not None:
        if path := entry.get(is_file):
            return Source(config.parent / path)
        return Source(data=str(entry[name]).encode()) if entry.get(name) else None
    if data := entry.get(f"{name}-data"):
        return Source(data=base64.b64decode(data, validate=True))
    return Source(config.parent / entry[name]) if entry.get(name) else None
