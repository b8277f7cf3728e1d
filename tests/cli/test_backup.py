"""A backup taken under load and restored elsewhere: keys work, and the ledger is the one that was saved."""

import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from openai import OpenAI
from tests.cli.running import free_ports, running
from tests.servers import short_folder

COMMAND = [sys.executable, "-m", "quarterdeck.cli"]
MODEL = "smollm2-135m-instruct"


def environ(state: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
    ports = dict(zip(("PORT", "WORKER_PORT", "ENGINE_PORT"), map(str, free_ports(3)), strict=True))
    return {**kept, "QUARTERDECK_STATE": str(state), **{f"QUARTERDECK_{name}": port for name, port in ports.items()}}


def run(variables: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *words], env=variables, capture_output=True, text=True)


def rows(database: Path) -> list[tuple[str, str, str]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT id, key, cost FROM ledger ORDER BY id").fetchall()
    finally:
        connection.close()


def chat(url: str, key: str) -> None:
    with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=4)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_backup_under_load_restored_elsewhere_has_keys_and_ledger(tmp_path: Path) -> None:
    folder = short_folder()
    variables, archive = environ(folder / "a"), folder / "backup.tar.gz"
    (folder / "a").mkdir(mode=0o700)
    (folder / "a" / "models.d").mkdir()
    (folder / "mine.yaml").write_text(
        "models:\n- name: smollm2-135m-instruct\n  engine: {source: packaged:smollm2-135m-instruct}\n"
    )
    with running([*COMMAND, "up", "--engine", "sim", "--config", str(folder / "mine.yaml")], variables, 100) as up:
        url = up.until("Base URL").split()[-1]
        key = up.until("API key").split()[2]
        up.until("Press Ctrl-C")
        stop, failures = threading.Event(), []

        def load() -> None:
            while not stop.is_set():
                try:
                    chat(url, key)
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(rows(folder / "a" / "quarterdeck.db")) < 20:
            assert not failures
        done = run(variables, "backup", "create", str(archive), "--config", str(folder / "mine.yaml"))
        stop.set()
        for thread in threads:
            thread.join()
        assert done.returncode == 0, done.stderr
        assert not failures
        refused = run(variables, "backup", "restore", str(archive))
        assert refused.returncode == 1
        assert "the platform is running" in refused.stderr
        up.interrupt()

    with tarfile.open(archive) as packed:
        packed.extract("quarterdeck.db", tmp_path, filter="data")
    saved = rows(tmp_path / "quarterdeck.db")
    assert len(saved) >= 20
    elsewhere = environ(folder / "b")
    done = run(elsewhere, "backup", "restore", str(archive))
    assert done.returncode == 0, done.stderr
    assert f"quarterdeck up --config {folder / 'b' / 'config/quarterdeck.yaml'}" in done.stdout
    assert rows(folder / "b" / "quarterdeck.db") == saved
    again = run(elsewhere, "backup", "restore", str(archive))
    assert "is not empty" in again.stderr
    command = [*COMMAND, "up", "--engine", "sim", "--config", str(folder / "b" / "config/quarterdeck.yaml")]
    with running(command, elsewhere, 100) as up:
        new_url = up.until("Base URL").split()[-1]
        assert up.until("API key").split()[2] == key
        up.until("Press Ctrl-C")
        chat(new_url, key)
        up.interrupt()
    assert {row[0] for row in saved} < {row[0] for row in rows(folder / "b" / "quarterdeck.db")}


def test_tables_of_a_newer_version_are_refused_and_nothing_is_put_in_place(
    tmp_path: Path, sqlite_template: Path
) -> None:
    variables = environ(tmp_path / "a")
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a" / "credentials").write_text("x")
    (tmp_path / "a" / "quarterdeck.db").write_bytes(sqlite_template.read_bytes())
    connection = sqlite3.connect(tmp_path / "a" / "quarterdeck.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    archive = tmp_path / "b.tar.gz"
    assert run(variables, "backup", "create", str(archive)).returncode == 0
    done = run(environ(tmp_path / "c"), "backup", "restore", str(archive))
    assert done.returncode == 1
    assert "whose tables this version does not know" in done.stderr
    assert not (tmp_path / "c").exists()


def test_reserved_space_is_no_part_of_a_backup_and_records_are(tmp_path: Path, sqlite_template: Path) -> None:
    state = tmp_path / "a"
    (state / "spool").mkdir(parents=True, mode=0o700)
    (state / "credentials").write_text("x")
    (state / "quarterdeck.db").write_bytes(sqlite_template.read_bytes())
    (state / "spool" / "one.reserve").write_bytes(bytes(4096))
    (state / "spool" / "one.lines").write_bytes(b"{}")
    assert run(environ(state), "backup", "create", str(tmp_path / "b.tar.gz")).returncode == 0
    listed = run(environ(state), "backup", "show", str(tmp_path / "b.tar.gz")).stdout
    assert "spool/one.lines" in listed
    assert ".reserve" not in listed


def test_replace_moves_the_former_state_aside(tmp_path: Path, sqlite_template: Path) -> None:
    variables = environ(tmp_path / "a")
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a" / "credentials").write_text("x")
    (tmp_path / "a" / "quarterdeck.db").write_bytes(sqlite_template.read_bytes())
    archive = tmp_path / "b.tar.gz"
    assert run(variables, "backup", "create", str(archive)).returncode == 0
    done = run(variables, "backup", "restore", "--replace", str(archive))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "credentials").read_text() == "x"
    assert len(list(tmp_path.glob("a.before-*"))) == 1


@pytest.mark.parametrize("words", [["create"], ["restore", "absent.tar.gz"], ["show", "absent.tar.gz"]])
def test_what_is_not_there_is_one_line(tmp_path: Path, words: list[str]) -> None:
    done = run(environ(tmp_path / "nowhere"), "backup", *words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
