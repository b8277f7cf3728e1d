"""PostgreSQL URLs as hosters print them."""

import shutil
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.servers import PostgresServer

from quarterdeck.store.database import Database
from quarterdeck.store.postgres_url import read_postgres_url

PRINTED = {
    "neon": "postgresql://u:p@ep-a-1.eu.aws.neon.tech/db?sslmode=require&channel_binding=require",
    "neon pooled": "postgres://u:p@ep-a-1-pooler.eu.aws.neon.tech/db?sslmode=require&connect_timeout=10&pgbouncer=true",
    "heroku": "postgres://u:p@ec2-1.compute.amazonaws.com:5432/d1",
    "supabase": "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
    "digitalocean": "postgresql://doadmin:p@db-1.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
    "aiven": "postgres://avnadmin:p@pg-1.aivencloud.com:12691/defaultdb?sslmode=require",
    "azure": "postgresql://u:p@x.postgres.database.azure.com:5432/postgres?sslmode=require&application_name=app",
    "rds": "postgresql://u:p@x.rds.amazonaws.com:5432/db?sslmode=verify-full&sslrootcert=/etc/rds.pem",
    "patroni": "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write&keepalives=1&keepalives_idle=30",
    "cockroach": "postgresql://u:p@x.cockroachlabs.cloud:26257/db?sslmode=verify-full&options=--cluster%3Dx-1",
    "render": "postgresql://u:p@dpg-1-a/db",
    "jdbc's ssl": "postgresql://u:p@h/db?ssl=true",
    "system": "postgresql://u:p@h/db?sslmode=verify-full&sslrootcert=system",
}


def as_asyncpg_reads_it(arguments: dict[str, Any]) -> tuple[list[tuple[str, int]], dict[str, str]]:
    """Addresses, and the settings that asyncpg sends to the server."""
    names = ("dsn", "host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile")
    names += ("direct_tls", "server_settings", "target_session_attrs", "krbsrvname", "gsslib")
    read = asyncpg.connect_utils._parse_connect_dsn_and_args(**{name: arguments.get(name) for name in names})
    return read[0], read[1].server_settings


@pytest.mark.parametrize("url", PRINTED.values(), ids=PRINTED.keys())
async def test_a_printed_url_is_understood(url: str, tmp_path: Path) -> None:
    if "/etc/rds.pem" in url:
        shutil.copy(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt", tmp_path / "rds.pem")
        url = url.replace("/etc/rds.pem", str(tmp_path / "rds.pem"))
    target = read_postgres_url(url)
    assert "p@" not in repr(target)
    addresses, settings = as_asyncpg_reads_it(target.arguments(connect_timeout=5, command_timeout=5))
    assert addresses[0][0] in url
    assert settings.keys() <= {"application_name", "options"}
    await Database(url).close()


def test_without_a_file_the_systems_authorities_verify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for mode, checks in (("verify-full", True), ("verify-ca", False)):
        target = read_postgres_url(f"postgres://h/db?sslmode={mode}")
        context = target.arguments(connect_timeout=1, command_timeout=1)["ssl"]
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, checks)
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql/root.crt").touch()
    assert "ssl" not in target.arguments(connect_timeout=1, command_timeout=1)


def test_words_mean_what_libpq_says() -> None:
    target = read_postgres_url(
        "postgres://h/db?application_name=a%20b&options=-c%20statement_timeout%3D5s&connect_timeout=7"
    )
    assert target.server_settings == {"application_name": "a b", "options": "-c statement_timeout=5s"}
    assert target.connect_timeout == 7
    assert target.dsn == "postgresql://h/db"
    assert read_postgres_url("postgres://h/db").server_settings == {"application_name": "quarterdeck"}
    assert "sslmode=require" in read_postgres_url("postgres://h/db?ssl=require").dsn
    (note,) = read_postgres_url("postgres://h/db?channel_binding=require").notes
    assert "channel_binding" in note
    lists = read_postgres_url("postgresql+asyncpg://u@/db?host=h1:1&host=h2:2")
    assert lists.dsn == "postgresql://u@/db?host=h1,h2&port=1,2"


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("schema=public", "'schema'"),
        ("sslmode=always", "sslmode"),
        ("ssl=maybe", "ssl"),
        ("target_session_attrs=writable", "target_session_attrs"),
        ("connect_timeout=soon", "connect_timeout"),
        ("gssencmode=require", "gssencmode"),
        ("a-b%3Dcanary=1", "'?'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(query: str, word: str) -> None:
    with pytest.raises(ValueError, match="database URL") as caught:
        read_postgres_url(f"postgresql://u:canary@h/db?{query}")
    assert word in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("password", ["can/ary", "can#ary", "can?ary", "can:a/ry", "can@ary/b"])
def test_no_piece_of_a_password_is_shown(password: str) -> None:
    try:
        target = read_postgres_url(f"postgresql://u:{password}@h:5432/db")
    except ValueError as error:
        assert "ary" not in str(error)
    else:
        assert "ary" not in repr(target)


async def test_a_server_sees_the_settings(postgres_server: PostgresServer, postgres_url: str) -> None:
    url = f"{postgres_url}&application_name=mine&options=-c%20work_mem%3D5MB&channel_binding=prefer&sslmode=prefer"
    database = Database(url)
    async with database.connect() as connection:
        names = "SELECT current_setting('application_name'), current_setting('work_mem')"
        assert (await connection.exec_driver_sql(names)).one() == ("mine", "5MB")
    await database.close()
