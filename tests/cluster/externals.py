"""A PostgreSQL and a Redis "elsewhere", as the chart's external values name them: pods of the same namespace."""

import base64
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.kubectl import Kubectl, Object

SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
PASSWORD = "elsewhere-password"


def server(name: str, image: str, ports: list[int], mounts: dict[str, Object], **container: Any) -> list[Object]:
    """A Deployment of one pod and its Service. `mounts`: volumes by the path where they are mounted."""
    volumes = [{"name": f"volume-{number}", **volume} for number, volume in enumerate(mounts.values())]
    places = [{"name": f"volume-{number}", "mountPath": path} for number, path in enumerate(mounts)]
    one = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": SECURITY,
        "volumeMounts": places,
        "readinessProbe": {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1, "failureThreshold": 60},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        **container,
    }
    pod: Object = {"enableServiceLinks": False, "automountServiceAccountToken": False, "containers": [one]}
    pod["volumes"] = volumes
    pod["terminationGracePeriodSeconds"] = 2
    labels = {"app": name}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"name": f"p{port}", "port": port} for port in ports]},
        },
    ]


def secret(name: str, **values: str) -> Object:
    data = {key.replace("__", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def postgres(kubectl: Kubectl, image: str) -> None:
    """PostgreSQL, and Secret `postgres-url` with keys `url` and `postgres`."""
    variables = {"POSTGRES_USER": "qd", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "qd"}
    url = f"postgresql://qd:{PASSWORD}@postgres:5432/qd"
    kubectl.apply(
        *server(
            "postgres",
            image,
            [5432],
            {"/var/lib/postgresql/data": {"emptyDir": {}}, "/tmp": {"emptyDir": {}}, "/dev/shm": {"emptyDir": {}}},
            env=[{"name": name, "value": value} for name, value in variables.items()],
        ),
        secret("postgres-url", url=url, postgres=url),
    )
    kubectl.rolled_out("deployment", "postgres")


def redis(kubectl: Kubectl, image: str, folder: Path) -> None:
    """Redis on 6379 and, with TLS by an authority of its own, on 6380; Secrets `redis-url` (keys `url`, `tls-url`) and
    `redis-ca`."""
    certificate, key = folder / "redis.crt", folder / "redis.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=redis-elsewhere",
    ]
    command += ["-addext", "subjectAltName=DNS:redis-elsewhere", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    options = ["--appendonly", "yes", "--maxmemory-policy", "noeviction", "--requirepass", PASSWORD, "--dir", "/data"]
    options += ["--tls-port", "6380", "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", "/tls/redis.crt", "--tls-key-file", "/tls/redis.key"]
    options += ["--tls-ca-cert-file", "/tls/redis.crt"]
    authority = "ssl_ca_certs=/etc/quarterdeck-tls/redis/ca.crt"
    kubectl.apply(
        secret("redis-tls", redis__crt=certificate.read_text(), redis__key=key.read_text()),
        secret("redis-ca", ca__crt=certificate.read_text()),
        secret("redis-url", url=f"redis://:{PASSWORD}@redis-elsewhere:6379/0"),
        *server(
            "redis-elsewhere",
            image,
            [6379, 6380],
            {"/data": {"emptyDir": {}}, "/tls": {"secret": {"secretName": "redis-tls"}}},
            args=["redis-server", *options],
        ),
    )
    tls = base64.b64encode(f"rediss://:{PASSWORD}@redis-elsewhere:6380/0?{authority}".encode()).decode()
    kubectl.patch("secret", "redis-url", {"data": {"tls-url": tls}})
    kubectl.rolled_out("deployment", "redis-elsewhere")
