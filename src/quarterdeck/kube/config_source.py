"""The configuration as the operator writes it: one ConfigMap, followed through the API.

At start the copy that kubelet has mounted is read, so that neither the API server nor the operator has to be there. A
pod that started before the ConfigMap existed has no configuration yet: that is a state with a reason, not an error. The
last valid documents are kept in the state folder as well: where the ConfigMap is invalid, a container that is
restarted goes on with them.
"""

import asyncio
import logging
from functools import partial
from pathlib import Path

import msgspec

from quarterdeck.kube.api import KubeApi, Metadata
from quarterdeck.kube.compiled import Documents, EngineIndex, from_config_map, from_folder
from quarterdeck.kube.follower import ObjectFollower
from quarterdeck.kube.saved import read_saved, save
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import ConfigError, parse
from quarterdeck.settings.source import in_thread

log = logging.getLogger(__name__)

NOTHING = Config(models=())
"""In force until there is a configuration."""


class ConfigMap(msgspec.Struct, frozen=True, rename={"binary_data": "binaryData"}):
    metadata: Metadata
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None

    def documents(self) -> Documents:
        """Raises ValueError where they are missing or damaged."""
        return from_config_map({"data": self.data, "binaryData": self.binary_data})


class ConfigMapSource:
    """A `ConfigSource`. `run` must run for `changed` to see changes."""

    def __init__(self, api: KubeApi, name: str, *, mounted: Path | None = None, saved: Path | None = None) -> None:
        """`mounted`: the folder with the ConfigMap's keys as files. `saved`: a file of our own for the last valid
        documents; its folder exists."""
        self._name = name
        self._where = f"{api.namespace}/{name}"
        self._mounted = mounted
        self._saved = saved
        self._follower = ObjectFollower(
            api,
            f"/api/v1/namespaces/{api.namespace}/configmaps",
            ConfigMap,
            what=f"the ConfigMap {self._where}",
            query={"fieldSelector": f"metadata.name={name}"},
            on_change=self._on_change,
        )
        self._is_due = asyncio.Event()
        self._is_forced = False
        self._seen: Documents | None = None
        """What was read last, valid or not."""
        self._is_refused = False
        """Whether the last change was invalid."""
        self.engines: Live[EngineIndex] = Live(EngineIndex())
        """Goes with the configuration in force."""
        self._has_config = False
        self._problem = ""
        """Of the mounted copy."""

    def read(self) -> Config:
        """The mounted copy, or the saved one where that is invalid; an empty configuration where there is none. Blocks.
        Never raises: what is wrong is in `waiting`, and the API server may know better in a moment."""
        for read in (self._read_mounted, self._read_saved):
            try:
                documents = read()
                if documents is None:
                    continue
                config, engines = _parsed(documents)
            except (OSError, ValueError) as error:
                self._problem = self._problem or str(error)
                log.error("invalid copy of the configuration: %s", error)
                continue
            self._seen = documents
            self._has_config = True
            self.engines.replace(engines)
            return config
        return NOTHING

    async def changed(self) -> Config:
        """Wait for another configuration than the last one. Raises ConfigError where it is invalid. Changes of the
        engines alone are put in force here."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            is_forced, self._is_forced = self._is_forced, False
            found = self._follower.objects.get(self._name)
            if found is None:
                if self._has_config and self._follower.is_synced:
                    log.warning("the ConfigMap %s was deleted, keeping its last configuration", self._where)
                continue
            try:
                config = await self._changed_to(found, is_forced=is_forced or self._is_refused)
            except ConfigError:
                self._is_refused = True
                raise
            if config is not None:
                self._is_refused, self._has_config = False, True
                return config

    async def _changed_to(self, found: ConfigMap, *, is_forced: bool) -> Config | None:
        """None: the configuration is the same. Raises ConfigError."""
        try:
            documents = await in_thread(found.documents)
        except ValueError as error:
            raise ConfigError(f"the ConfigMap {self._where}: {error}") from error
        before, self._seen = self._seen, documents
        if before is not None and documents.config == before.config and not is_forced:
            if documents.engines != before.engines:
                self.engines.replace(await in_thread(partial(_engines, documents.engines)))
                await self._save(documents)
            return None
        config, engines = await in_thread(partial(_parsed, documents))
        await self._save(documents)
        self.engines.replace(engines)  # last: the caller puts the configuration in force in the same turn of the loop
        return config

    def refresh(self) -> None:
        self._is_forced = True
        self._is_due.set()

    async def run(self) -> None:
        """Follow the ConfigMap until cancelled."""
        await self._follower.run()

    @property
    def waiting(self) -> str | None:
        """Why there is no configuration yet. None: there is one."""
        if self._has_config:
            return None
        if not self._follower.is_synced:
            reason = self._follower.error or "not asked yet"
            return f"waiting for the Kubernetes API: {reason}{self._about_copy()}"
        if self._name not in self._follower.objects:
            return f"waiting for the ConfigMap {self._where}: it does not exist yet"
        return f"waiting for a valid configuration in the ConfigMap {self._where}"

    @property
    def stale(self) -> str | None:
        """Why changes may not arrive. None: the ConfigMap is followed."""
        return self._follower.error

    def _about_copy(self) -> str:
        return f" (its mounted copy is invalid: {self._problem.splitlines()[0]})" if self._problem else ""

    def _on_change(self) -> None:
        self._is_due.set()

    def _read_mounted(self) -> Documents | None:
        return None if self._mounted is None else from_folder(self._mounted)

    def _read_saved(self) -> Documents | None:
        return None if self._saved is None else read_saved(self._saved, Documents)

    async def _save(self, documents: Documents) -> None:
        if self._saved is not None:
            await in_thread(partial(save, self._saved, documents))


def source_of(api: KubeApi, environment: Environment, process: str) -> ConfigMapSource:
    """The ConfigMap that the environment names; its mounted copy is in the folder of QUARTERDECK_CONFIG. `process`:
    gateway or worker, which may share a state folder."""
    assert environment.config_map is not None  # noqa: S101  # the caller has asked
    return ConfigMapSource(
        api,
        environment.config_map,
        mounted=environment.config.parent if environment.config is not None else None,
        saved=environment.state / "cluster" / f"configuration-{process}.json",
    )


def _parsed(documents: Documents) -> tuple[Config, EngineIndex]:
    """Raises ConfigError."""
    return parse(documents.config), _engines(documents.engines)


def _engines(text: str) -> EngineIndex:
    try:
        return EngineIndex.decode(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error
