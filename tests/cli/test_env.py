"""`quarterdeck env`."""

import shlex

from quarterdeck.cli import env
from quarterdeck.cli.credentials import Credentials


def test_env_quotes_what_a_shell_would_take_apart() -> None:
    text = env.exports(Credentials("http://h/v1", "a'b $(rm -rf /)", "c"))
    words = [shlex.split(line) for line in text.splitlines()]
    assert words == [["export", "OPENAI_BASE_URL=http://h/v1"], ["export", "OPENAI_API_KEY=a'b $(rm -rf /)"]]
