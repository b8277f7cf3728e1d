"""A release of the chart in a cluster: where its gateway and its admin key are."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import click

from quarterdeck.cli.kubectl import Kubectl, KubectlError

APP = "app.kubernetes.io/name=quarterdeck"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
KEY_FILE = "QUARTERDECK_BOOTSTRAP_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Installation:
    """One release."""

    namespace: str
    release: str
    service: str
    """The gateway's Service."""
    port: int
    secret: str
    """The Secret with the admin key."""
    secret_key: str


def find(kubectl: Kubectl, release: str | None) -> Installation:
    """The release in kubectl's namespace, or the only one of the cluster if the namespace has none and was not named.

    Raises ClickException if there is none or more than one.
    """
    selector = f"{APP},{COMPONENT}=gateway" + (f",{INSTANCE}={release}" if release else "")
    found = kubectl.items("deployments", "--selector", selector)
    if not found and kubectl.namespace is None:
        try:
            found = kubectl.items("deployments", "--all-namespaces", "--selector", selector)
        except KubectlError as error:
            raise KubectlError(f"{error.message} (name the namespace with --namespace)") from None
    if not found:
        where = f"namespace {kubectl.namespace}" if kubectl.namespace else "the cluster"
        raise click.ClickException(f"no {f'release {release!r}' if release else 'release'} of Quarterdeck in {where}")
    if len(found) > 1:
        names = ", ".join(f"--namespace {_namespace(one)} --release {_release(one)}" for one in found)
        raise click.ClickException(f"several releases of Quarterdeck; choose one: {names}")
    return _installation(kubectl.within(_namespace(found[0])), found[0])


def _installation(kubectl: Kubectl, deployment: dict[str, Any]) -> Installation:
    release = _release(deployment)
    services = kubectl.items("services", "--selector", f"{APP},{COMPONENT}=gateway,{INSTANCE}={release}")
    if not services:
        raise click.ClickException(f"release {release} in namespace {kubectl.namespace} has no Service of its gateway")
    secret, secret_key = admin_secret(deployment)
    service = services[0]
    return Installation(
        namespace=_namespace(deployment),
        release=release,
        service=service["metadata"]["name"],
        port=int(service["spec"]["ports"][0]["port"]),
        secret=secret,
        secret_key=secret_key,
    )


def admin_secret(deployment: dict[str, Any]) -> tuple[str, str]:
    """Name and key of the Secret that the gateway's pods mount at QUARTERDECK_BOOTSTRAP_KEY_FILE. Raises
    ClickException."""
    pod = deployment["spec"]["template"]["spec"]
    for container in pod["containers"]:
        paths = [one.get("value") for one in container.get("env", ()) if one["name"] == KEY_FILE]
        for path in filter(None, paths):
            folder, _, name = str(path).rpartition("/")
            mounts = container.get("volumeMounts", ())
            mounted = [one["name"] for one in mounts if one["mountPath"].rstrip("/") == folder]
            for volume in pod.get("volumes", ()):
                if volume["name"] in mounted and "secret" in volume:
                    keys = {one["path"]: one["key"] for one in volume["secret"].get("items", ())}
                    return volume["secret"]["secretName"], keys.get(name, name)
    raise click.ClickException(
        f"{deployment['metadata']['name']} mounts no Secret at {KEY_FILE}: pass an admin key with --key-file"
    )


def read_key(kubectl: Kubectl, installation: Installation) -> str:
    """The admin key. Raises ClickException."""
    try:
        data = kubectl.within(installation.namespace).json("get", "secret", installation.secret).get("data") or {}
        return base64.b64decode(data[installation.secret_key]).decode().strip()
    except KubectlError as error:
        raise KubectlError(f"{error.message} (pass an admin key with --key-file)") from None
    except (KeyError, binascii.Error, UnicodeDecodeError):
        where = f"Secret {installation.secret} in namespace {installation.namespace}"
        text = f"{where} has no key {installation.secret_key}"
        raise click.ClickException(text) from None


def _namespace(one: dict[str, Any]) -> str:
    return str(one["metadata"]["namespace"])


def _release(one: dict[str, Any]) -> str:
    return str(one["metadata"].get("labels", {}).get(INSTANCE, ""))
