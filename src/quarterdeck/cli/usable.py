"""What `up` shows once the platform can be used. Pure."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.cli import credentials
from quarterdeck.cli.credentials import Credentials

QUESTION = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class Banner:
    """`program`: the path of this command. `ends_with`: how it is stopped."""

    user: Credentials
    state: Path
    program: Path
    is_simulated: bool = False
    shows_key: bool = True
    """False where the text is kept: in a service's journal, or a log."""
    ends_with: str = "Press Ctrl-C to stop."

    def text(self, model: str | None) -> str:
        """Base URL, key and commands, ready to be pasted. `model`: a chat model that is ready."""
        note = " (simulated: its answers are made up)" if self.is_simulated else ""
        command = shlex.quote(str(self.program))
        file = self.state / credentials.FILENAME
        key = f"{self.user.api_key}   (stored in {file})" if self.shows_key else f"in {file}"
        lines = [
            f"Chat is ready: {model}{note}" if model else "The platform is up.",
            "",
            f"  Base URL   {self.user.base_url}",
            f"  API key    {key}",
            "",
        ]
        if model:
            lines += [f"  {self._curl(model)}", ""]
        lines += [
            f'  eval "$({command} env)"   configures OpenAI clients in this shell',
            f"  {command} chat          starts a chat",
            f"  Logs: {self.state / 'logs'}   {self.ends_with}",
        ]
        return "\n".join(lines)

    def _curl(self, model: str) -> str:
        body = json.dumps(
            {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 64}
        )
        key = (
            f"'Authorization: Bearer {self.user.api_key}'"
            if self.shows_key
            else '"Authorization: Bearer $OPENAI_API_KEY"'
        )
        url = f"{self.user.base_url}/chat/completions"
        return f"curl {url} -H {key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
