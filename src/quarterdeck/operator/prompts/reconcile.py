"""Reconciles Prompt objects."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from quarterdeck.kube.compile.claims import Claimant, Conflict, settle
from quarterdeck.kube.conditions import Condition, ConditionType, Reason, replaced
from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.prompt import Prompt, PromptStatus
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.gateway_client import GatewayError
from quarterdeck.operator.manifests import Manifest, is_deleting, name_of
from quarterdeck.operator.prompts.client import PromptClient
from quarterdeck.operator.prompts.plan import make_plan
from quarterdeck.operator.prompts.record import PromptRecord

log = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
"""After which a prompt that was changed elsewhere has the object's content again."""
RETRY_SECONDS = 5.0
"""Between two attempts while no gateway does it."""


class PromptReconciler:
    """Keeps the platform's prompts equal with the Prompt objects of the namespace."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        client: PromptClient,
        record: PromptRecord,
        namespace: str,
        now: Callable[[], str] = lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ) -> None:
        self._cluster, self._cache, self._client, self._record = cluster, cache, client, record
        self._namespace, self._now = namespace, now
        self._recording = asyncio.Lock()

    async def reconcile(self, name: str) -> float | None:
        """Returns the seconds until the next call, or None for an object that is gone."""
        manifest = self._cache.get(Prompt.kind, name)
        if manifest is None or is_deleting(manifest):
            return await self._archive_gone()
        try:
            prompt = Prompt.parse(manifest)
        except InvalidObjectError as error:
            await self._write_status(manifest, [(ConditionType.ACCEPTED, Reason.INVALID_SPEC, str(error))])
            return RESYNC_SECONDS
        if (conflict := self._conflict(prompt)) is not None:
            await self._write_status(manifest, [(ConditionType.ACCEPTED, Reason.NAME_CONFLICT, str(conflict))])
            return RETRY_SECONDS
        try:
            version, notes = await self._mirror(prompt)
        except GatewayError as error:
            return await self._report(manifest, error)
        digest = prompt.version().digest
        await self._write_status(manifest, [], message="; ".join(notes), version=version, digest=digest)
        return RESYNC_SECONDS

    async def _mirror(self, prompt: Prompt) -> tuple[int, tuple[str, ...]]:
        """Returns the newest version's number, and notes. Raises GatewayError."""
        known = await self._client.find(prompt.prompt_name)
        plan = make_plan(prompt, known)
        is_new = await self._note(prompt)  # before it is made: an operator that ends here archives it all the same
        if known is not None and plan.is_empty:
            return known.latest_version, plan.notes
        try:
            version = await self._client.carry_out(plan, prompt, known)
        except GatewayError as error:
            if error.is_refusal and is_new:
                await self._note(prompt, is_mirrored=False)
            raise
        log.info("mirrored %s as version %d of the prompt '%s'", prompt.ref, version, prompt.prompt_name)
        return version, plan.notes

    async def _note(self, prompt: Prompt, *, is_mirrored: bool = True) -> bool:
        """Record whether a prompt is mirrored; returns whether that is news."""
        async with self._recording:
            recorded = await self._record.read()
            if (recorded.get(prompt.name) == prompt.prompt_name) is is_mirrored:
                return False
            others = {name: each for name, each in recorded.items() if name != prompt.name}
            await self._record.write(others | ({prompt.name: prompt.prompt_name} if is_mirrored else {}))
            return True

    async def _report(self, manifest: Manifest, error: GatewayError) -> float:
        """The status of a prompt that could not be mirrored; returns the seconds until the next attempt."""
        if error.is_refusal:
            await self._write_status(manifest, [(ConditionType.ACCEPTED, Reason.INVALID_SPEC, str(error))])
            return RESYNC_SECONDS
        reason = Reason.SYNC_FAILED if error.status else Reason.GATEWAY_UNREACHABLE
        await self._write_status(manifest, [(ConditionType.SYNCED, reason, str(error))])
        return RETRY_SECONDS

    def _conflict(self, prompt: Prompt) -> Conflict | None:
        """The older object that has the prompt's name."""
        claimants = []
        for manifest in self._cache.of_kind(Prompt.kind):
            if not is_deleting(manifest):
                try:
                    each = Prompt.parse(manifest)
                except InvalidObjectError:
                    continue
                claimants.append(Claimant(each.ref, each.metadata, (each.prompt_name,)))
        return settle(claimants, {}).get(prompt.ref)

    async def _archive_gone(self) -> float | None:
        """Archive the prompts whose objects are gone. Returns None, or the seconds until the next attempt."""
        async with self._recording:
            recorded = await self._record.read()
            objects = [each for each in self._cache.of_kind(Prompt.kind) if not is_deleting(each)]
            live = {name_of(each): _prompt_name(each) for each in objects}
            names, again = dict(recorded), None
            for name, prompt_name in recorded.items():
                if live.get(name) == prompt_name:
                    continue
                try:
                    if prompt_name not in live.values():
                        await self._client.archive(prompt_name)
                        log.info("archived the prompt '%s': its object %s is gone", prompt_name, name)
                    del names[name]
                except GatewayError as error:
                    again = RETRY_SECONDS
                    log.warning("could not archive the prompt '%s', trying again: %s", prompt_name, error)
            await self._record.write(names)
        return again

    def begin(self) -> None:
        """This operator leads from now on: what others have recorded is read again."""
        self._record.forget()

    async def _write_status(
        self,
        manifest: Manifest,
        problems: list[tuple[ConditionType, Reason, str]],
        *,
        message: str = "",
        version: int | None = None,
        digest: str | None = None,
    ) -> None:
        generation = int(manifest["metadata"].get("generation", 0))
        try:
            known = Prompt.parse(manifest).status
        except InvalidObjectError:
            known = PromptStatus()
        conditions = list(known.conditions)
        for each in _conditions(problems, generation):
            conditions = replaced(conditions, each, self._now())
        status = PromptStatus(
            observed_generation=generation,
            conditions=tuple(conditions),
            version=known.version if version is None else version,
            digest=known.digest if digest is None else digest,
            message=problems[0][2] if problems else message,
        )
        if status == known:
            return
        body: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": Prompt.kind,
            "metadata": {"name": name_of(manifest), "namespace": self._namespace, "uid": manifest["metadata"]["uid"]},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cache.put(await self._cluster.apply(body, self._namespace, status=True), is_own=True)
        except ClusterError as error:
            if error.status not in (404, 409):  # it was deleted meanwhile
                raise


_GOOD = (
    (ConditionType.ACCEPTED, Reason.ACCEPTED),
    (ConditionType.SYNCED, Reason.SYNCED),
    (ConditionType.READY, Reason.READY),
)


def _conditions(problems: list[tuple[ConditionType, Reason, str]], generation: int) -> list[Condition]:
    """True up to the first problem, whose reason Ready has as well; what would follow it is pending."""
    bad = {kind: (reason, message) for kind, reason, message in problems}
    found = []
    failed: tuple[Reason, str] | None = None
    for kind, reason in _GOOD:
        if kind in bad:
            failed = bad[kind]
            found.append(_condition(kind, "False", *failed, generation))
        elif failed is None:
            found.append(_condition(kind, "True", reason, "", generation))
        elif kind is ConditionType.READY:
            found.append(_condition(kind, "False", *failed, generation))
        else:
            found.append(_condition(kind, "Unknown", Reason.PENDING, "", generation))
    return found


def _condition(kind: ConditionType, status: Any, reason: Reason, message: str, generation: int) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, observed_generation=generation)


def _prompt_name(manifest: Manifest) -> str:
    """The prompt's name, also of an object that can't be read."""
    spec = manifest.get("spec")
    name = spec.get("name") if isinstance(spec, dict) else None
    return name if isinstance(name, str) else name_of(manifest)
