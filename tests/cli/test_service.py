"""`quarterdeck service`, without a systemd that runs: its files, and what it says remains to be done."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from quarterdeck.cli.__main__ import cli


def say(folder: Path, *words: str) -> tuple[int, str]:
    variables = {"XDG_CONFIG_HOME": str(folder / "config"), "QUARTERDECK_STATE": str(folder / "state")}
    secrets = {"HF_TOKEN": "hf_secret", "QUARTERDECK_DATABASE_URL": "postgresql://u:secret@h/d", "PATH": str(folder)}
    done = CliRunner().invoke(cli, ["service", *words], env={**variables, **secrets, "QUARTERDECK_PORT": "8123"})
    return done.exit_code, done.output


def test_install_writes_the_unit_and_a_private_environment_file(tmp_path: Path) -> None:
    status, output = say(tmp_path, "install", "--engine", "sim", "--port", "8080")
    assert status == 0
    unit = (tmp_path / "config/systemd/user/quarterdeck.service").read_text()
    assert "up --engine sim --port 8080\n" in unit
    assert f"QUARTERDECK_STATE={tmp_path / 'state'}" in unit
    assert "QUARTERDECK_PORT=8123" in unit
    assert "secret" not in unit
    file = tmp_path / "config/quarterdeck/environment"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "systemctl --user daemon-reload; systemctl --user enable --now quarterdeck.service" in output


def test_a_second_install_keeps_the_environment_file_and_uninstall_removes_the_unit(tmp_path: Path) -> None:
    say(tmp_path, "install", "--no-start")
    file = tmp_path / "config/quarterdeck/environment"
    file.write_text("HF_TOKEN=mine\n")
    say(tmp_path, "install", "--no-start", "--engine", "none")
    assert file.read_text() == "HF_TOKEN=mine\n"
    unit = tmp_path / "config/systemd/user/quarterdeck.service"
    assert "--engine none" in unit.read_text()
    assert say(tmp_path, "uninstall")[0] == 0
    assert not unit.exists()
    status, output = say(tmp_path, "uninstall")
    assert status == 1
    assert "does not exist" in output


def test_print_changes_nothing(tmp_path: Path) -> None:
    status, output = say(tmp_path, "install", "--system", "--print")
    assert status == 0
    assert output.startswith("[Unit]")
    assert "secret" not in output
    assert not (tmp_path / "config").exists()


def test_a_machines_service_needs_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    status, output = say(tmp_path, "install", "--system", "--user", "no-such-user-here")
    assert status == 1
    assert "useradd --system" in output
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in say(tmp_path, "install", "--system")[1]
