"""kubectl for tests: objects in and out, and waiting by watches, never by sleeping."""

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

Object = dict[str, Any]
Objects = dict[str, Object]
"""Objects by name."""

WAIT_S = 300.0
"""Far longer than anything takes: a test fails by what happened, and by the time only if nothing does."""


class KubectlError(AssertionError):
    """kubectl failed. The message is its standard error."""


class Kubectl:
    """kubectl with a kubeconfig (`environ`), in one namespace."""

    def __init__(self, environ: Mapping[str, str], namespace: str = "default") -> None:
        self.environ = dict(environ)
        self.namespace = namespace

    def within(self, namespace: str) -> "Kubectl":
        return Kubectl(self.environ, namespace)

    def __call__(self, *arguments: str, input: str | None = None, seconds: float = 300) -> str:
        """`kubectl <arguments>`; its standard output. Raises KubectlError."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(
            command, env=self.environ, input=input, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: Object | str, options: tuple[str, ...] = ()) -> None:
        """Server-side apply of manifests: dicts, or YAML text."""
        texts = [one if isinstance(one, str) else yaml.safe_dump(one) for one in manifests]
        arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=test", *options, "-f", "-")
        self(*arguments, input="\n---\n".join(texts))

    def refused(self, *manifests: Object | str) -> str:
        """Apply what the API must refuse; returns why it does."""
        try:
            self.apply(*manifests)
        except KubectlError as error:
            return str(error)
        raise AssertionError("the API server accepted it")

    def get(self, kind: str, name: str) -> Object | None:
        """One object, or None."""
        text = self("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(text) if text.strip() else None

    def select(self, kind: str, selector: str = "") -> list[Object]:
        """Objects of a kind that match a label selector."""
        found: list[Object] = json.loads(self("get", kind, "--selector", selector, "--output=json"))["items"]
        return found

    def patch(self, kind: str, name: str, change: Object, options: tuple[str, ...] = ()) -> None:
        """A merge patch."""
        self("patch", kind, name, "--type=merge", "--patch", json.dumps(change), *options)

    def delete(self, kind: str, name: str, wait: bool = True) -> None:
        self("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def table(self, kind: str, *options: str) -> list[list[str]]:
        """What `kubectl get` prints, header first, by columns (two spaces or more apart)."""
        lines = self("get", kind, *options).splitlines()
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]

    def logs(self, pod: str, *options: str) -> str:
        return self("logs", pod, *options)

    def events(self, name: str) -> list[Object]:
        """The events about an object, oldest first."""
        found = json.loads(self("get", "events", f"--field-selector=involvedObject.name={name}", "--output=json"))[
            "items"
        ]
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def wait_events(self, name: str, reason: str, type: str = "", seconds: float = WAIT_S) -> list[Object]:
        """Events about an object with a reason (empty: any) and a type, once there is one: they are written in the
        background, after the status."""
        deadline = time.monotonic() + seconds
        while True:
            found = [
                each
                for each in self.events(name)
                if (not reason or each["reason"] == reason) and (not type or each["type"] == type)
            ]
            if found:
                return found
            assert time.monotonic() < deadline, f"no event {reason or type} about {name} within {seconds:.0f} s"
            time.sleep(0.2)

    def wait(
        self,
        kind: str,
        name: str,
        until: Callable[[Object | None], object],
        what: str = "",
        seconds: float = WAIT_S,
    ) -> Object | None:
        """Watch one object until `until(object or None)` is true; returns the object. Raises AssertionError with what
        was there instead."""
        seen = self._watch(kind, [f"--field-selector=metadata.name={name}"], lambda all: until(all.get(name)), seconds)
        if seen is None:
            wanted = what or getattr(until, "__doc__", None) or "the condition"
            raise AssertionError(f"{kind} {name}: not {wanted} within {seconds:.0f} s\n{self.diagnosis(kind, name)}")
        return seen.get(name)

    def wait_all(
        self, kind: str, selector: str, until: Callable[[Objects], object], what: str = "", seconds: float = WAIT_S
    ) -> Objects:
        """Watch the objects of a kind and selector until `until(objects by name)` is true; returns them."""
        seen = self._watch(kind, ["--selector", selector], until, seconds)
        if seen is None:
            wanted = what or "the condition"
            raise AssertionError(f"{kind} of {selector!r}: not {wanted} within {seconds:.0f} s\n{self.diagnosis(kind)}")
        return seen

    def wait_condition(
        self, kind: str, name: str, condition: str, status: str = "True", seconds: float = WAIT_S
    ) -> Object:
        """Watch an object until a condition of its current generation has a status."""

        def holds(one: Object | None) -> bool:
            found = condition_of(one, condition)
            return found is not None and found["status"] == status and is_current(one)

        found = self.wait(kind, name, holds, f"{condition}={status}", seconds)
        assert found is not None
        return found

    def rolled_out(self, kind: str, name: str, seconds: float = WAIT_S) -> None:
        """Wait until a Deployment, StatefulSet or DaemonSet has its newest revision available and nothing else."""
        self("rollout", "status", f"{kind}/{name}", f"--timeout={seconds:.0f}s", seconds=seconds + 10)

    def _watch(
        self, kind: str, options: list[str], until: Callable[[Objects], object], seconds: float
    ) -> Objects | None:
        """The objects once `until` is true of them; None after `seconds`."""
        deadline = time.monotonic() + seconds
        listed = json.loads(self("get", kind, *options, "--output=json"))
        objects = {one["metadata"]["name"]: one for one in listed["items"]}
        if until(objects):
            return objects
        # A watch lists first, so what happened since the list above is in it as well. Objects that were deleted since
        # then are not: they are looked for again after some seconds.
        with self._events(kind, options) as events:
            relist = time.monotonic() + 5
            while (now := time.monotonic()) < deadline:
                event = events.next(min(deadline, relist) - now)
                if event is not None:
                    _follow(objects, event)
                if time.monotonic() >= relist or (event is None and events.is_over):
                    listed = json.loads(self("get", kind, *options, "--output=json"))
                    objects = {one["metadata"]["name"]: one for one in listed["items"]}
                    relist = time.monotonic() + 20
                if until(objects):
                    return objects
            return None

    @contextlib.contextmanager
    def history(self, kind: str, selector: str) -> Iterator[list[Objects]]:
        """What was there at each moment of a block: the objects by name, after each change. Complete when the block
        has ended, however late the watch and this process are."""
        moments: list[Objects] = []
        objects: Objects = {}

        def catch_up(events: "_Documents") -> None:
            listed = {one["metadata"]["uid"]: _version(one) for one in self.select(kind, selector)}
            deadline = time.monotonic() + WAIT_S
            while any(version > seen.get(uid, 0) for uid, version in listed.items()):
                event = events.next(deadline - time.monotonic())
                assert event is not None, f"the watch of {kind} did not catch up"
                seen[event["object"]["metadata"]["uid"]] = _version(event["object"])
                _follow(objects, event)
                moments.append(dict(objects))

        seen: dict[str, int] = {}
        with self._events(kind, ["--selector", selector]) as events:
            catch_up(events)
            yield moments
            catch_up(events)

    @contextlib.contextmanager
    def _events(self, kind: str, options: list[str]) -> Iterator["_Documents"]:
        """A watch's events: what is there, then each change."""
        command = ["kubectl", "--namespace", self.namespace, "get", kind, *options]
        command += ["--watch", "--output-watch-events", "--output=json"]
        process = subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield _Documents(process)
        finally:
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def diagnosis(self, kind: str = "", name: str = "") -> str:
        """What a person would look at: the object, pods, newest events, the ends of logs of pods that are not ready."""
        parts: list[str] = []

        def add(title: str, *arguments: str) -> None:
            try:
                parts.append(f"--- {title}\n{self(*arguments)[-6000:].rstrip()}")
            except (KubectlError, subprocess.TimeoutExpired) as error:
                parts.append(f"--- {title}: {error}")

        if kind and name:
            add(f"{kind} {name}", "get", kind, name, "--output=yaml", "--ignore-not-found")
        elif kind:
            add(kind, "get", kind, "--output=wide")
        add("pods", "get", "pods", "--output=wide")
        add("events", "get", "events", "--sort-by=.lastTimestamp")
        for pod in self.select("pods"):
            if (ready := condition_of(pod, "Ready")) is None or ready["status"] != "True":
                add(
                    f"logs of {pod['metadata']['name']}",
                    "logs",
                    pod["metadata"]["name"],
                    "--all-containers",
                    "--tail=40",
                )
        return "\n".join(parts)


class _Documents:
    """JSON documents of a process' output, one after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._found: queue.Queue[Object] = queue.Queue()
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        try:
            for line in self._process.stdout:
                text += line
                # Some kubectls write a document in one line; others indent it, down to a brace in the first column.
                if not (line.startswith("}") or (line.startswith("{") and line.rstrip().endswith("}"))):
                    continue
                document, _ = decoder.raw_decode(text.lstrip())
                self._found.put(document)
                text = ""
        except ValueError:  # the pipe was closed
            return

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def next(self, seconds: float) -> Object | None:
        """The next document; None if there is none within `seconds`."""
        try:
            return self._found.get(timeout=max(seconds, 0.05))
        except queue.Empty:
            return None


def _follow(objects: Objects, event: Object) -> None:
    """Apply a watch's event. One that is older than what a list had already is dropped."""
    one = event["object"]
    name = one["metadata"]["name"]
    known = objects.get(name)
    if known is not None and _version(known) > _version(one):
        return
    if event["type"] == "DELETED":
        objects.pop(name, None)
    else:
        objects[name] = one


def _version(one: Object) -> int:
    return int(one["metadata"]["resourceVersion"])


def is_ending(one: Object) -> bool:
    """Whether an object is being deleted."""
    return "deletionTimestamp" in one["metadata"]


def condition_of(one: Object | None, type: str) -> Object | None:
    """A condition of an object's status."""
    conditions = ((one or {}).get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == type), None)


def is_current(one: Object | None) -> bool:
    """Whether an object's status was written for its present spec."""
    if one is None:
        return False
    observed = (one.get("status") or {}).get("observedGeneration")
    return observed is None or observed >= one["metadata"].get("generation", 0)
