"""Where commands change models: through the admin API of a running platform, else in the files of this machine's."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote

import click
import httpx
from pydantic import ValidationError

from quarterdeck.cli import target
from quarterdeck.cli.client import body_of, error_message, gateway_client, json_object, user_credentials
from quarterdeck.cli.credentials import FILENAME
from quarterdeck.errors import APIError
from quarterdeck.resources.models.added import AddedModels, not_found
from quarterdeck.resources.models.objects import adapter_object, model_object
from quarterdeck.resources.models.requests import AdapterRequest, ModelRequest, ModelUpdate
from quarterdeck.resources.tenancy.requests import given
from quarterdeck.settings.config import Config
from quarterdeck.settings.drop_in_files import DropInFiles
from quarterdeck.settings.drop_ins import folder_of, read_configuration
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.models import ModelConfig

UNAVAILABLE = 503
NOT_RUNNING = {"state": "not running", "detail": "the platform is not running"}


class ModelStore(Protocol):
    """Objects are those of the admin API. Every method raises ClickException."""

    is_near: bool
    """Whether the platform is on this machine."""
    is_running: bool

    def retrieve(self, name: str) -> dict[str, Any]: ...

    def create(self, body: dict[str, Any]) -> dict[str, Any]: ...

    def update(self, name: str, body: dict[str, Any]) -> dict[str, Any]: ...

    def delete(self, name: str) -> dict[str, Any]: ...

    def adapters(self, model: str | None) -> list[dict[str, Any]]: ...

    def add_adapter(self, body: dict[str, Any]) -> dict[str, Any]: ...

    def remove_adapter(self, name: str) -> dict[str, Any]: ...


@contextmanager
def open_store(*, reads: bool = False) -> Iterator[ModelStore]:
    """The running platform, near or far; where none runs on this machine, its files. `reads`: nothing is changed."""
    is_near = target.current().is_local
    if is_near and not (Environment.read().state / FILENAME).exists():  # it has never been started
        yield _files(reads=reads)
        return
    user = user_credentials()
    with gateway_client(user.gateway_url, user.admin_key) as client:
        if is_near and not _answers(client):
            yield _files(reads=reads)
        else:
            yield ApiModels(client, is_near=is_near)


def _files(*, reads: bool) -> "FileModels":
    later = "" if reads else ": changes take effect when it starts"
    click.echo(f"the platform is not running{later}", err=True)
    return FileModels(Environment.read())


def _answers(client: httpx.Client) -> bool:
    try:
        client.get("/healthz")
    except httpx.ConnectError:
        return False
    return True


class ApiModels:
    """`client`: with an admin key."""

    is_running = True

    def __init__(self, client: httpx.Client, *, is_near: bool) -> None:
        self._client = client
        self.is_near = is_near

    def retrieve(self, name: str) -> dict[str, Any]:
        return self._of(name, self._client.get(_path("models", name)))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        return json_object(self._client.post("/admin/models", json=body))

    def update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._of(name, self._client.post(_path("models", name), json=body))

    def delete(self, name: str) -> dict[str, Any]:
        return self._of(name, self._client.delete(_path("models", name)))

    def adapters(self, model: str | None) -> list[dict[str, Any]]:
        params = {} if model is None else {"model": model}
        found = self._of(model or "", self._client.get("/admin/adapters", params=params))
        data: list[dict[str, Any]] = found["data"]
        return data

    def add_adapter(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._of(body["model"], self._client.post("/admin/adapters", json=body))

    def remove_adapter(self, name: str) -> dict[str, Any]:
        return json_object(self._client.delete(_path("adapters", name)))

    def download(self, source: str, revision: str | None) -> dict[str, Any]:
        return json_object(self._client.post("/admin/weights", json={"source": source, "revision": revision}))

    def downloads(self) -> list[dict[str, Any]] | None:
        """None: the engine, which downloads, does not answer now."""
        response = self._client.get("/admin/weights")
        if response.status_code == UNAVAILABLE:
            return None
        data: list[dict[str, Any]] = json_object(response)["data"]
        return data

    def cancel_download(self, source: str, revision: str | None) -> bool:
        """Whether one was running."""
        params = {"source": source} | ({} if revision is None else {"revision": revision})
        return bool(json_object(self._client.delete("/admin/weights", params=params))["was_running"])

    def _of(self, name: str, response: httpx.Response) -> dict[str, Any]:
        """The object, or an error that suggests a name."""
        if response.status_code == 404:
            listed = json_object(self._client.get("/admin/models"))["data"]
            message = error_message(body_of(response)) or f"There is no model '{name}'."
            raise click.ClickException(message + suggestion(name, [model["id"] for model in listed]))
        return json_object(response)


class FileModels:
    """The drop-ins of this machine, while no platform runs here."""

    is_near, is_running = True, False

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._added = AddedModels(DropInFiles(folder_of(environment.state)))

    def retrieve(self, name: str) -> dict[str, Any]:
        return self._object(self._find(name))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        with _in_words():
            return self._object(self._added.create(ModelRequest.model_validate(body), self._config()))

    def update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        changes = _validated(ModelUpdate, body)
        with _in_words():
            return self._object(self._added.update(self._find(name).name, changes, self._config()))

    def delete(self, name: str) -> dict[str, Any]:
        with _in_words():
            self._added.remove(name, self._config())
        return {"id": name, "object": "model.deleted", "deleted": True}

    def adapters(self, model: str | None) -> list[dict[str, Any]]:
        config = self._config()
        models = config.models if model is None else (self._find(model),)
        return [adapter_object(each, config, a.name) for each in models if each.engine for a in each.engine.adapters]

    def add_adapter(self, body: dict[str, Any]) -> dict[str, Any]:
        with _in_words():
            request = AdapterRequest.model_validate(body)
            made = self._added.add_adapter(self._find(request.model).name, request.adapter, self._config())
        return adapter_object(made, self._config(), request.name)

    def remove_adapter(self, name: str) -> dict[str, Any]:
        with _in_words():
            self._added.remove_adapter(name, self._config())
        return {"id": name, "object": "adapter.deleted", "deleted": True}

    def _config(self) -> Config:
        try:
            return read_configuration(self._environment)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None

    def _find(self, name: str) -> ModelConfig:
        models = self._config().models
        for model in models:
            if name in (model.name, *model.aliases):
                return model
        raise click.ClickException(not_found(name).message + suggestion(name, [model.name for model in models]))

    def _object(self, model: ModelConfig) -> dict[str, Any]:
        return model_object(model, self._config(), {"state": "stopped"} if model.stopped else NOT_RUNNING)


def suggestion(name: str, known: list[str]) -> str:
    """` Did you mean 'qwen'?`, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


@contextmanager
def _in_words() -> Iterator[None]:
    """The API's errors as the command's."""
    try:
        yield
    except APIError as error:
        raise click.ClickException(error.message) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise click.ClickException(f"`{where}`: {first['msg'].removeprefix('Value error, ')}") from None


def _validated(shape: type[ModelUpdate], body: dict[str, Any]) -> dict[str, Any]:
    with _in_words():
        return given(shape.model_validate(body))


def _path(collection: str, name: str) -> str:
    """Raises ClickException for what can't be a name: it would be the path of something else."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise click.ClickException(not_found(name).message)
    return f"/admin/{collection}/{quote(name, safe='/:@')}"
