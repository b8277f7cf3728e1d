"""Draws the terminal pictures of docs/cli.md: `make docs-pictures`.

Starts a platform with the simulated engine in a folder of its own, runs the commands on a terminal of 100 columns and
writes what it shows as SVG files to docs/images. Folders, ports and keys are replaced by those of a usual installation.
Look at the pictures before you commit them.
"""

import contextlib
import fcntl
import io
import os
import pty
import re
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images"
COLUMNS = 100
PORTS = {"QUARTERDECK_PORT": 8000, "QUARTERDECK_WORKER_PORT": 8012, "QUARTERDECK_ENGINE_PORT": 8011}
CONFIG = "gatway: {}\ncache:\n  max_mb: many\n"
NOT_COLOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b[=>]|\r(?!\n)")
"""Sequences that are no colours: readline's, and returns to the line's beginning."""
# Without the web font of rich's own template: the reader's browser fetches nothing.
FORMAT = """\
<svg class="terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 16px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
STORIES: dict[str, Sequence[str]] = {
    "cli-status": ["status", "models", "keys create notebook --team research --budget 5", "keys list"],
    "cli-usage": ["usage", "requests list --limit 3"],
    "cli-errors": ["stauts", "config check broken.yaml", "chat -m smolm2 hello"],
}
CHAT = ["/stats", "Say hello", "/model", "/bye"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "broken.yaml").write_text(CONFIG, encoding="utf-8")
        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("QUARTERDECK_", "OPENAI_"))}
        environ = {
            **kept,
            **{key: str(port) for key, port in ports.items()},
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CONTEXTS": str(folder / "contexts.toml"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
        }
        environ.pop("NO_COLOR", None)
        usual = {str(folder / "state"): "~/.local/state/quarterdeck", str(Path(sys.executable).parent) + "/": ""}
        usual[str(Path.home())] = "~"
        usual |= {f":{port}": f":{PORTS[key]}" for key, port in ports.items()}
        try:
            draw("cli-up", shown(["up -d --engine sim"], folder, environ), usual)
            draw("cli-chat", shown(["chat"], folder, environ, CHAT), usual)
            for picture, commands in STORIES.items():
                draw(picture, shown(commands, folder, environ), usual)
        finally:
            subprocess.run(["quarterdeck", "down", "--now"], env=environ, check=False)


def shown(commands: Sequence[str], folder: Path, environ: Mapping[str, str], lines: Sequence[str] = ()) -> str:
    """What a terminal shows of these commands. `lines` are typed at the prompts of the last one."""
    pieces = []
    for words in commands:
        pieces.append(f"\x1b[1m$ quarterdeck {words}\x1b[0m\n")
        pieces.append(on_terminal(["quarterdeck", *shlex.split(words)], folder, environ, lines).rstrip("\n") + "\n")
    return "".join(pieces)


def on_terminal(command: Sequence[str], folder: Path, environ: Mapping[str, str], lines: Sequence[str]) -> str:
    """Run a command and type a line at each `> `. Returns its output with colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    waiting = list(lines)
    found = ""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=dict(environ)):
        os.close(theirs)
        with contextlib.suppress(OSError):  # the last writer has closed it
            while piece := os.read(ours, 65_536):
                found += piece.decode("utf-8", errors="replace")
                if waiting and NOT_COLOR.sub("", found).endswith("\n> "):
                    os.write(ours, waiting.pop(0).encode() + b"\n")
    os.close(ours)
    return NOT_COLOR.sub("", found).replace("\r\n", "\n")


def draw(name: str, text: str, usual: Mapping[str, str]) -> None:
    """Write docs/images/NAME.svg."""
    for own, common in usual.items():
        text = text.replace(own, common)
    text = re.sub(r"sk-qd-[\w-]{20,}", "sk-qd-…", text)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=False)
    PICTURES.mkdir(exist_ok=True)
    svg = console.export_svg(title="", code_format=FORMAT, unique_id=name)
    (PICTURES / f"{name}.svg").write_text(
        "\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8"
    )
    print(f"docs/images/{name}.svg")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


if __name__ == "__main__":
    main()
