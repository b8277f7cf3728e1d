"""`up --tls-cert --tls-key`: HTTPS on the gateway's port, for OpenAI clients and for this user's commands."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from tests.cli.running import free_ports, running

pytestmark = pytest.mark.timeout(600)  # starts of the whole platform, on a machine that may be busy
COMMAND = [sys.executable, "-m", "quarterdeck.cli"]


def environ(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
    ports = dict(zip(("PORT", "WORKER_PORT", "ENGINE_PORT"), map(str, free_ports(3)), strict=True))
    return {
        **kept,
        "QUARTERDECK_STATE": str(folder / "state"),
        **{f"QUARTERDECK_{name}": port for name, port in ports.items()},
    }


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=llm.example.com", "-addext", "subjectAltName=DNS:llm.example.com,IP:127.0.0.1"]
    subprocess.run([*command, "-days", "2", *names, "-out", chain, "-keyout", key], check=True, capture_output=True)
    return chain, key


def test_the_gateway_serves_https_and_commands_trust_its_certificate(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    variables = environ(tmp_path)
    chain, key = map(str, certificate)
    options = ["up", "--engine", "sim", "--tls-cert", chain, "--tls-key", key]
    with running([*COMMAND, *options], variables, patience=100) as up:
        url = up.until("Base URL").split()[-1]
        secret = up.until("API key").split()[2]
        assert url == f"https://127.0.0.1:{variables['QUARTERDECK_PORT']}/v1"
        trust = ssl.create_default_context(cafile=chain)
        with (
            httpx.Client(verify=trust, trust_env=False) as http,
            OpenAI(base_url=url, api_key=secret, http_client=http) as client,
        ):
            stream = client.chat.completions.create(
                model="smollm2-135m-instruct", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        for command in (["models"], ["keys", "list"], ["status"]):
            done = subprocess.run([*COMMAND, *command], env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url.replace('https', 'http')}/models", trust_env=False)
        up.interrupt()


@pytest.mark.parametrize("options", [["--tls-cert"], ["--tls-key"]])
def test_a_certificate_without_its_key_is_refused(
    tmp_path: Path, certificate: tuple[Path, Path], options: list[str]
) -> None:
    done = subprocess.run(
        [*COMMAND, "up", "--engine", "sim", *options, str(certificate[0])],
        env=environ(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--tls-cert and --tls-key go together" in done.stderr


def test_a_key_of_another_certificate_is_refused_before_anything_starts(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    chain = str(certificate[0])
    done = subprocess.run(
        [*COMMAND, "up", "--engine", "sim", "--tls-cert", chain, "--tls-key", chain],
        env=environ(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Error: cannot use" in done.stderr
    assert not (tmp_path / "state").exists()
