"""A conversation in the terminal: its messages, its commands, and lines with editing and history."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from quarterdeck.cli import contexts
from quarterdeck.cli.chat_answer import Answer, Asker, Message
from quarterdeck.cli.output import printable
from quarterdeck.settings.environment import Environment

HELP = '''/model [NAME]   show the models, or change to NAME
/system [TEXT]  show or change the system message; /system - removes it
/retry          ask again
/stats          show tokens, speed and cost of answers, or stop
/save FILE      write the conversation as JSON, or as text to a .md or .txt file
/clear          forget the conversation
/bye            end (also Ctrl-D)
A line that ends with \\ goes on in the next; """ begins and ends a text of several lines.'''
MOST_LINES = 1000
"""Of the history."""


class Session:
    """`system`: the system message, or None."""

    def __init__(self, asker: Asker, system: str | None) -> None:
        self._asker = asker
        self.system = system
        self.messages: list[Message] = []
        self._prompt: str | None = None
        """The last one, answered or not."""

    @property
    def model(self) -> str:
        return str(self._asker.body["model"])

    def ask(self, prompt: str, *, is_quiet: bool = False) -> Answer:
        """Send a prompt. What was not answered at all is not remembered. Raises ClickException, KeyboardInterrupt."""
        self._prompt = prompt
        self.messages.append({"role": "user", "content": prompt})
        answer = Answer()
        system = [{"role": "system", "content": self.system}] if self.system else []
        try:
            self._asker.ask([*system, *self.messages], answer, is_quiet=is_quiet)
        except click.ClickException:
            self.messages.pop()
            raise
        except KeyboardInterrupt:
            if not answer.text:
                self.messages.pop()
            raise
        finally:
            if answer.text and self.messages and self.messages[-1]["role"] == "user":
                self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def command(self, line: str) -> str | None:
        """Carry out `/name rest`. Returns the text to show; None: the conversation ends. Raises ClickException."""
        name, _, rest = line[1:].partition(" ")
        found: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "?": lambda _: HELP,
            "model": self._model,
            "system": self._system,
            "retry": self._retry,
            "stats": self._stats,
            "save": self._save,
            "clear": self._clear,
        }
        if name in ("bye", "exit", "quit"):
            return None
        if name not in found:
            raise click.ClickException(f"no command /{name}: /help lists them")
        return found[name](rest.strip())

    def _model(self, name: str) -> str:
        known = self._asker.models()
        if not name:
            return "\n".join(f"{'*' if each == self.model else ' '} {printable(each)}" for each in known)
        if name not in known:
            raise click.ClickException(f"no model '{name}' (there are: {printable(', '.join(known))})")
        self._asker.body["model"] = name
        return f"model: {name}"

    def _system(self, text: str) -> str:
        if text:
            self.system = None if text == "-" else text
        return f"system: {self.system or 'none'}"

    def _retry(self, _: str) -> str:
        if self._prompt is None:
            raise click.ClickException("nothing was asked yet")
        if self.messages and self.messages[-2]["content"] == self._prompt:
            del self.messages[-2:]  # the question and its answer
        self.ask(self._prompt)
        return ""

    def _stats(self, _: str) -> str:
        self._asker.shows_stats = not self._asker.shows_stats
        return f"stats: {'on' if self._asker.shows_stats else 'off'}"

    def _save(self, name: str) -> str:
        if not name:
            raise click.ClickException("/save needs the name of a file")
        path = Path(name).expanduser()
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self.messages]
        if path.suffix in (".md", ".txt"):
            text = "\n".join(f"## {each['role']}\n\n{each['content']}\n" for each in messages)
        else:
            text = json.dumps({"model": self.model, "messages": messages}, indent=2, ensure_ascii=False) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
        return f"saved {len(messages)} messages to {path}"

    def _clear(self, _: str) -> str:
        self.messages.clear()
        self._prompt = None
        return "cleared"


def converse(session: Session, *, note: str = "", read: Callable[[str], str] = input) -> None:
    """Read prompts until the end. `note`: follows the model's name; `read`: returns a line, raises EOFError."""
    click.secho(f"{printable(session.model)}{note}; /help lists the commands, Ctrl-D ends.", dim=True, err=True)
    with_history = _History()
    while True:
        try:
            prompt = read_prompt(read)
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            if with_history.had_text():
                continue  # the line is given up, as in a shell
            return
        if not prompt.strip():
            continue
        with_history.keep()
        try:
            if prompt.startswith("/"):
                if (text := session.command(prompt.strip())) is None:
                    return
                if text:
                    click.echo(text, err=True)
            else:
                session.ask(prompt)
        except KeyboardInterrupt:
            click.secho("… stopped", dim=True, err=True)
        except click.ClickException as error:
            error.show()


def read_prompt(read: Callable[[str], str]) -> str:
    """A prompt of one line or several. Raises EOFError, KeyboardInterrupt."""
    line = read("> ")
    if line.lstrip().startswith('"""'):
        lines = [line.lstrip()[3:]]
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(read("… "))
        lines[-1] = lines[-1].rstrip()[:-3]
        return "\n".join(lines).strip("\n")
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{read('… ')}"
    return line


class _History:
    """Line editing, and prompts of earlier conversations; kept in a file that only this user can read."""

    def __init__(self) -> None:
        self._readline = None
        self._file: Path | None = None
        if not sys.stdin.isatty():
            return
        try:
            import readline
        except ImportError:  # a Python without it: lines are read plainly
            return
        self._readline = readline
        try:
            self._file = contexts.path_of(Environment.read().variables).with_name("chat_history")
            readline.read_history_file(self._file)
        except (OSError, ValueError, click.ClickException):
            pass  # the first conversation, or a file that can't be read: it begins empty
        readline.set_history_length(MOST_LINES)

    def had_text(self) -> bool:
        """Whether the interrupted line had text."""
        return self._readline is not None and bool(self._readline.get_line_buffer())

    def keep(self) -> None:
        """Write the history, so that a killed terminal loses nothing."""
        if self._readline is None or self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600))
            self._readline.write_history_file(self._file)
        except OSError:
            self._file = None  # a read-only home: the history lasts as long as the conversation
