"""docs/kubernetes.md walked through as a reader would: each of its commands is run, in order, in one shell."""

import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import yaml
from tests.cluster import externals
from tests.cluster.kubectl import Kubectl
from tests.cluster.provision import Provisioned, add_volumes, remove_volumes
from tests.cluster.release import CHECKOUT, image_values
from tests.platform import free_port

PAGE = CHECKOUT / "docs" / "kubernetes.md"
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```bash\n(.*?)```", re.DOTALL)
CLAIMS = ["quarterdeck-database", "data-quarterdeck-redis-0"]


def commands(page: str) -> list[str]:
    """The page's shell commands, but for those that name what they need."""
    return [block for reason, block in BLOCK.findall(page) if not reason]


def test_every_command_of_the_page_works(
    cluster: Provisioned,
    kubectl: Kubectl,
    images: dict[str, str],
    crds: None,
    make_namespace: Callable[..., Kubectl],
    tmp_path: Path,
) -> None:
    first, second = make_namespace("docs"), make_namespace("docs-ha")
    volumes = add_volumes(cluster, first, CLAIMS)
    externals.postgres(second, images["postgres"])
    externals.redis(second, images["redis"], tmp_path)
    second("delete", "secrets", "postgres-url", "redis-url")  # the page makes them
    port = free_port()
    script = "".join(f"set -x\n{block}\n{{ set +x; }} 2>/dev/null\n" for block in commands(PAGE.read_text()))
    # The namespaces exist, with other names; so do the servers elsewhere.
    script = re.sub(r"kubectl create namespace \S+", "true", script)
    script = re.sub(r"(namespace[ =])quarterdeck-ha\b", rf"\g<1>{second.namespace}", script)
    script = re.sub(r"(namespace[ =])quarterdeck\b", rf"\g<1>{first.namespace}", script)
    script = script.replace("postgres.example.com", "postgres").replace("redis.example.com", "redis-elsewhere")
    script = script.replace("PASSWORD", externals.PASSWORD)
    script = script.replace("8000:80 ", f"{port}:80 ").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    try:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", f"trap 'kill $(jobs -p)' EXIT\n{script}"],
            cwd=CHECKOUT,
            env=environment(first, images, tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
        print(done.stdout)
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{first.diagnosis()}"
        assert '"content":' in done.stdout, "no model answered"
    finally:
        for namespace in (first, second):
            subprocess.run(
                ["helm", "uninstall", "quarterdeck", "--ignore-not-found", "--wait", "-n", namespace.namespace],
                env=dict(kubectl.environ),
                check=False,
            )
        first("delete", "persistentvolumeclaims", "--all", "--wait=false")
        remove_volumes(cluster, kubectl, volumes)


def environment(namespace: Kubectl, images: dict[str, str], folder: Path) -> dict[str, str]:
    """A kubeconfig of its own, and a `helm` that adds the values of the tests' images."""
    config = folder / "kubeconfig"
    config.write_text(namespace("config", "view", "--raw", "--flatten"))
    values = folder / "images.yaml"
    values.write_text(yaml.safe_dump(image_values(images)))
    helm = subprocess.run(
        ["bash", "-c", "command -v helm"], env=dict(namespace.environ), check=True, capture_output=True, text=True
    ).stdout.strip()
    shim = folder / "bin" / "helm"
    shim.parent.mkdir()
    shim.write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            case $1 in install | upgrade) exec {shlex.quote(helm)} "$@" --values {shlex.quote(str(values))} ;; esac
            exec {shlex.quote(helm)} "$@"
            """
        )
    )
    shim.chmod(0o755)
    path = os.pathsep.join([str(shim.parent), str(CHECKOUT / ".envs/core/bin"), namespace.environ["PATH"]])
    return {**namespace.environ, "KUBECONFIG": str(config), "PATH": path}


def test_commands_that_are_not_run_say_what_they_need() -> None:
    page = PAGE.read_text()
    assert len(commands(page)) >= 8
    for reason in re.findall(r"<!-- not run: ([^>]+) -->", page):
        assert reason.startswith(("needs ", "tests/cluster/")), reason
