"""compose.yaml: valid by the Compose Specification, restricted, pinned, and in step with what the programs read."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests.servers import wait_until

from quarterdeck.cli.redis_server import ensure
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import parse
from quarterdeck.settings.shutdown import SHUTDOWN_SECONDS
from quarterdeck.store.postgres_url import read_postgres_url

CHECKOUT = Path(__file__).resolve().parents[2]
FILE = CHECKOUT / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("gateway", "worker")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([CHECKOUT / "compose/make-secrets", folder], check=True, capture_output=True)
    return folder


def test_the_file_is_valid_by_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema_rs.validator_for(schema)
    assert [str(error) for error in validator.iter_errors(COMPOSE)] == []
    assert not validator.is_valid({**COMPOSE, "services": {"gateway": {"imagee": "x"}}})


def test_docker_compose_reads_the_file() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", "--file", str(FILE), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_restricted_pinned_and_checked(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "privileged" not in service
    assert re.search(r":(\d+\.\d+|\$\{QUARTERDECK_TAG:-\d+\.\d+\.\d+\})", service["image"]), service["image"]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["logging"]["options"]["max-size"]


def test_only_the_gateway_has_a_port_and_only_on_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "gateway": ["${QUARTERDECK_LISTEN:-127.0.0.1:8000}:8000"]
    }
    assert COMPOSE["networks"]["platform"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "outside" not in service["networks"]} == {"redis", "postgres"}


def test_what_a_service_names_exists() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (CHECKOUT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], volume
        for path in re.findall(r"/run/secrets/([a-z-]+)", yaml.safe_dump(service)):
            assert path in service["secrets"], (name, path)


def test_every_secret_of_the_file_is_made_once_and_kept(secrets: Path) -> None:
    assert {one["file"].removeprefix("compose/secrets/") for one in COMPOSE["secrets"].values()} == {
        one.name for one in secrets.iterdir()
    }
    before = {one.name: one.read_text() for one in secrets.iterdir()}
    subprocess.run([CHECKOUT / "compose/make-secrets", secrets], check=True, capture_output=True)
    assert {one.name: one.read_text() for one in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", OURS)
def test_our_programs_read_every_variable_and_the_secrets(name: str, secrets: Path) -> None:
    environ = {key: value.replace("/run/secrets", str(secrets)) for key, value in SERVICES[name]["environment"].items()}
    settings = Environment.read({**environ, "QUARTERDECK_STATE": "/var/lib/quarterdeck"})
    assert settings.ignored == ()
    password = (secrets / "redis-password").read_text().strip()
    assert settings.redis_url == f"redis://:{password}@redis:6379/0"
    assert "@postgres:5432/" in settings.database_url
    read_postgres_url(settings.database_url)
    assert str(settings.config) == "/etc/quarterdeck/quarterdeck.yaml"
    if name == "gateway":
        assert settings.bootstrap_key is not None
        assert settings.bootstrap_key.read().startswith("sk-qd-")


def test_the_configuration_is_valid_and_names_the_engines_model() -> None:
    file = CHECKOUT / "compose/quarterdeck.yaml"
    config = parse(file.read_text(encoding="utf-8"), str(file))
    (model,) = config.models
    assert [endpoint.url for endpoint in model.endpoints] == ["http://engine:8000"]
    assert f"--served-model-name={model.name}" in SERVICES["engine"]["command"]
    assert "--port=8000" in SERVICES["engine"]["command"]
    assert float(SERVICES["gateway"]["stop_grace_period"][:-1]) > config.gateway.drain_seconds + SHUTDOWN_SECONDS


def test_every_variable_of_the_file_is_on_the_page_with_its_default() -> None:
    page = (CHECKOUT / "docs/operations/compose.md").read_text(encoding="utf-8")
    for variable, default in re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", TEXT):
        assert f"`{variable}`" in page, variable
        assert default in page, (variable, default)


def test_redis_reads_its_configuration(secrets: Path, tmp_path: Path) -> None:
    server = ensure(Environment.read().cache).path
    text = (secrets / "redis-conf").read_text().replace("dir /data", f"dir {tmp_path}")
    (tmp_path / "redis.conf").write_text(text)
    socket = tmp_path / "redis.sock"
    process = subprocess.Popen([str(server), str(tmp_path / "redis.conf"), "--port", "0", "--unixsocket", str(socket)])
    try:
        wait_until(socket.exists)
    finally:
        process.terminate()
        assert process.wait(20) == 0
