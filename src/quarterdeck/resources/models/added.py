"""Adds, changes and removes models in the folder of drop-ins. Each change is checked against the configuration in force
and is written whole, or refused with the reason."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError, ServiceUnavailableError
from quarterdeck.resources.models.requests import ModelRequest
from quarterdeck.settings.config import Config
from quarterdeck.settings.drop_in_files import (
    DropInFiles,
    ModelTooLargeError,
    NameTakenError,
    NotAddedError,
    TooManyModelsError,
)
from quarterdeck.settings.drop_ins import MAX_FILES
from quarterdeck.settings.engine import AdapterConfig
from quarterdeck.settings.models import ModelConfig

OF_MODEL = ("aliases", "serves", "stopped")
"""Fields of a request that belong to the model; the others are its engine's."""


class AddedModels:
    """All methods block on the folder's lock and disk, and raise the API's errors."""

    def __init__(self, files: DropInFiles) -> None:
        self._files = files

    def create(self, request: ModelRequest, config: Config) -> ModelConfig:
        given = request.model_dump(exclude_unset=True, exclude={"name"})
        name = request.public_name
        _refuse_known(config, name)
        made = _validated({"name": name, **_split(given)})
        with self._changing(name):
            _check(config, self._files, made)
            self._files.create(made)
        return made

    def update(self, name: str, changes: dict[str, Any], config: Config) -> ModelConfig:
        """`changes`: fields of a request; None resets one."""
        _require_added(config, name)
        with self._changing(name):
            before = self._current(name)
            split = _split(changes)
            data = before.model_dump(exclude_unset=True)
            engine = _merged(data.get("engine") or {}, split.pop("engine", {}))
            return self._replace(_validated({**_merged(data, split), "engine": engine}), config)

    def add_adapter(self, name: str, adapter: AdapterConfig, config: Config) -> ModelConfig:
        """A model that takes none gets room for it, which starts its engine anew."""
        _require_added(config, name)
        with self._changing(name):
            before = self._current(name)
            engine = before.engine
            if engine is None:
                raise BadRequestError(f"'{name}' has no engine of this platform.", param="model")
            if any(each.name == adapter.name for each in engine.adapters):
                raise ConflictError(
                    f"'{name}' has an adapter '{adapter.name}' already.", param="name", code="name_taken"
                )
            adapters = (*engine.adapters, adapter)
            room = max(engine.max_adapters, len(adapters))
            return self._replace(_with_engine(before, adapters=adapters, max_adapters=room), config)

    def remove_adapter(self, adapter: str, config: Config) -> ModelConfig:
        owner = adapter_owner(config, adapter)
        _require_added(config, owner)
        with self._changing(owner):
            before = self._current(owner)
            kept = tuple(each for each in before.engine.adapters if each.name != adapter) if before.engine else ()
            return self._replace(_with_engine(before, adapters=kept), config)

    def remove(self, name: str, config: Config) -> None:
        """A model whose file is broken can be removed as well."""
        if any(model.name == name for model in config.models):
            _require_added(config, name)
        for route in config.routes:
            used = [*(each.model for each in route.targets), *(each.model for each in route.fallbacks)]
            if name in used or (route.mirror is not None and route.mirror.model == name):
                raise ConflictError(
                    f"The route '{route.name}' of quarterdeck.yaml uses '{name}': remove it there first.",
                    code="model_in_use",
                )
        with self._changing(name):
            self._files.remove(name)

    def _current(self, name: str) -> ModelConfig:
        found = self._files.find(name)
        if found.model is None:
            raise ConflictError(f"The file of '{name}' is broken: {found.problem}", code="invalid_file")
        return found.model

    def _replace(self, model: ModelConfig, config: Config) -> ModelConfig:
        _check(config, self._files, model)
        self._files.replace(model)
        return model

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """The folder's lock, and its errors in words."""
        try:
            with self._files.locked():
                yield
        except NameTakenError:
            raise _taken(name) from None
        except NotAddedError:
            raise not_found(name) from None
        except TooManyModelsError:
            raise ConflictError(
                f"There are {MAX_FILES} added models, as many as there may be.", code="too_many"
            ) from None
        except ModelTooLargeError:
            raise BadRequestError("The model's settings are too large.") from None
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk of the state folder is full" if is_full else error.strerror or type(error).__name__
            raise ServiceUnavailableError(
                f"The change was not saved: {why}.", code="storage_full" if is_full else "storage_unavailable"
            ) from error


def adapter_owner(config: Config, adapter: str) -> str:
    """The model with this adapter. Raises NotFoundError."""
    for model in config.models:
        if model.engine is not None and any(each.name == adapter for each in model.engine.adapters):
            return model.name
    raise NotFoundError(f"There is no adapter '{adapter[:200]}'.", param="name", code="adapter_not_found")


def not_found(name: str) -> NotFoundError:
    return NotFoundError(f"There is no model '{name[:200]}'.", param="name", code="model_not_found")


def _require_added(config: Config, name: str) -> None:
    """Raises ConflictError for a model of the file, NotFoundError for one that is not there."""
    if all(model.name != name for model in config.models):
        raise not_found(name)
    if name not in config.added_models:
        raise ConflictError(
            f"'{name}' is managed by quarterdeck.yaml: change it there, and it takes effect at once.",
            param="name",
            code="managed_by_config",
        )


def _refuse_known(config: Config, name: str) -> None:
    if any(model.name == name for model in config.models):
        raise _taken(name)


def _taken(name: str) -> ConflictError:
    return ConflictError(f"There is a model '{name}' already: choose another name.", param="name", code="name_taken")


def _split(given: dict[str, Any]) -> dict[str, Any]:
    """A request's fields as an entry of `models:`."""
    found = {name: given[name] for name in OF_MODEL if name in given}
    engine = {name: value for name, value in given.items() if name not in OF_MODEL}
    return {**found, "engine": engine} if engine else found


def _merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**before, **changes}.items() if value is not None}


def _with_engine(model: ModelConfig, **changes: Any) -> ModelConfig:
    engine = model.engine.model_dump(exclude_unset=True) if model.engine else {}
    return _validated({**model.model_dump(exclude_unset=True), "engine": {**engine, **changes}})


def _validated(data: dict[str, Any]) -> ModelConfig:
    engine = {name: value for name, value in data.get("engine", {}).items() if value is not None}
    try:
        return ModelConfig.model_validate({**_merged({}, data), "engine": engine})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = [str(part) for part in first["loc"] if part != "engine"]
        message = first["msg"].removeprefix("Value error, ")
        where = f"`{'.'.join(names)}`: " if names else ""
        raise BadRequestError(f"{where}{message}.", param=names[0] if names else None) from None


def _check(config: Config, files: DropInFiles, model: ModelConfig) -> None:
    """Raises ConflictError where the model does not go together with the file and the other added models, as they are
    in the folder now."""
    others = [each.model for each in files.read() if each.model is not None and each.model.name != model.name]
    own = {each.name for each in config.models} - config.added_models
    base = config.model_copy(update={"models": tuple(each for each in config.models if each.name in own)})
    try:
        base.with_models([*(each for each in others if each.name not in own), model])
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConflictError(f"{message[:1].upper()}{message[1:]}.", param="name", code="name_taken") from None
