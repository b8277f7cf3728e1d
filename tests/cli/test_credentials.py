"""The credentials file in the state folder."""

import stat
from pathlib import Path

import pytest

from quarterdeck.cli import credentials
from quarterdeck.cli.credentials import Credentials


def test_credentials_are_made_once_and_kept_with_the_address_that_holds_now(tmp_path: Path) -> None:
    first, is_new = credentials.ensure(tmp_path, "http://127.0.0.1:8000/v1")
    again, is_new_again = credentials.ensure(tmp_path, "http://127.0.0.1:9000/v1")
    assert (is_new, is_new_again) == (True, False)
    assert (again.api_key, again.admin_key) == (first.api_key, first.admin_key)
    assert credentials.read(tmp_path).gateway_url == "http://127.0.0.1:9000"
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "api_key = 1", "not toml ["])
def test_broken_credentials_say_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials").write_text(text, encoding="utf-8")
    with pytest.raises(credentials.CredentialsError, match="remove it"):
        credentials.read(tmp_path)


MINE = Credentials("http://127.0.0.1:8000/v1", "sk-qd-api", "sk-qd-admin")


def test_credentials_do_not_show_their_keys() -> None:
    assert "sk-qd" not in repr(MINE)
