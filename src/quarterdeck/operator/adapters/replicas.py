"""The replicas of a Model that adapters are loaded into: ready pods, and what an engine door lists.

A pod of a Deployment is an engine. A Ray cluster has an engine door beside its head, which lists the engines' ports.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from quarterdeck.kube.replica_addresses import is_replica
from quarterdeck.operator.http_answers import fetch
from quarterdeck.operator.manifests import Manifest, is_deleting, labels_of, name_of, uid_of
from quarterdeck.operator.render.pod import ENGINE
from quarterdeck.operator.render.ray_pods import DOOR_PORT
from quarterdeck.operator.render.rayservice import NODE_TYPE

log = logging.getLogger(__name__)

DOOR_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    """A ready replica. `key` changes when its engine is restarted."""

    pod: str
    key: str
    url: str


def engine_pods(pods: Iterable[Manifest]) -> list[Found]:
    """Ready pods that are engines themselves."""
    found = []
    for pod in pods:
        if NODE_TYPE in labels_of(pod) or not _is_ready(pod):
            continue
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        container = next((each for each in statuses if each.get("name") == ENGINE), None)
        port = _port(pod)
        if container is None or port is None:
            continue
        key = f"{uid_of(pod)}/{container.get('containerID', '')}"
        found.append(Found(name_of(pod), key, f"http://{_host(pod)}:{port}"))
    return found


async def ray_replicas(pods: Iterable[Manifest], client: httpx.AsyncClient) -> list[Found] | None:
    """Ready replicas that the doors of Ray clusters list, of those in the Model's own `pods`. None: a door does not
    answer."""
    pods = list(pods)
    hosts = {str((pod.get("status") or {}).get("podIP")) for pod in pods if labels_of(pod).get(NODE_TYPE) == "worker"}
    heads = [pod for pod in pods if labels_of(pod).get(NODE_TYPE) == "head" and _is_ready(pod)]
    answers = await asyncio.gather(*(_rows(client, pod) for pod in heads))
    found: list[Found] = []
    for rows in answers:
        if rows is None:
            return None
        for row in rows:
            url = str(row.get("url") or "").rstrip("/")
            if row.get("state") == "ready" and row.get("id") and is_replica(url, hosts):
                found.append(Found(str(row["id"]), f"{row['id']}/{url}", url))
    return found


def has_doors(pods: Sequence[Manifest]) -> bool:
    return any(NODE_TYPE in labels_of(pod) for pod in pods)


async def _rows(client: httpx.AsyncClient, pod: Manifest) -> list[dict[str, Any]] | None:
    try:
        answer = await fetch(client, "GET", f"http://{_host(pod)}:{DOOR_PORT}/endpoints", seconds=DOOR_SECONDS)
        rows = answer.json()["endpoints"]
        return [row for row in rows if isinstance(row, dict)]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("engine door of %s does not answer: %s", name_of(pod), error or type(error).__name__)
        return None


def _is_ready(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    is_ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return is_ready and bool(status.get("podIP")) and not is_deleting(pod)


def _port(pod: Manifest) -> int | None:
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == ENGINE:
            for port in container.get("ports") or ():
                if port.get("name") == "http":
                    return int(port["containerPort"])
    return None


def _host(pod: Manifest) -> str:
    address = str((pod.get("status") or {}).get("podIP"))
    return f"[{address}]" if ":" in address else address
