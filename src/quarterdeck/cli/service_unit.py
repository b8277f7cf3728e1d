"""The systemd unit of `quarterdeck up`, as text. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 180
"""From SIGTERM to SIGKILL: draining (52 s by default), the engine (60 s), Redis, and a busy machine."""
START_SECONDS = 900
"""To READY, which gateway and worker reach in seconds; a migration of a large ledger may take ten minutes. Models load
after READY."""

_COMMON = """\
Restart=on-failure
RestartSec=5
TimeoutStartSec={start}
TimeoutStopSec={stop}
# `up` stops its processes in order; what is left after it is killed.
KillMode=mixed
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
"""
# Not among them: PrivateDevices (GPUs), MemoryDenyWriteExecute (compilers of kernels), ProtectProc (`up` finds the
# processes of an earlier run), PrivateTmp's like for /dev/shm (NCCL).
_SYSTEM = """\
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """The command of the unit and its user."""

    command: Sequence[str]
    environ: Mapping[str, str]
    """Without secrets: every user may read a unit."""
    environment_file: Path
    """Read by systemd if it exists; secrets belong there."""
    user: str | None = None
    """Of a system unit. None: a user's own unit."""


def render(unit: Unit) -> str:
    """The text of quarterdeck.service."""
    lines = ["[Unit]", "Description=Quarterdeck, a self-hosted OpenAI platform"]
    if unit.user is not None:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    lines += ["", "[Service]", "Type=notify", "NotifyAccess=main"]
    if unit.user is not None:
        lines += [f"User={unit.user}", "StateDirectory=quarterdeck", "StateDirectoryMode=0700"]
        lines += ["CacheDirectory=quarterdeck", "WorkingDirectory=/var/lib/quarterdeck"]
    lines += [f"Environment={quoted(f'{name}={value}')}" for name, value in unit.environ.items()]
    lines.append(f"EnvironmentFile=-{str(unit.environment_file).replace('%', '%%')}")
    lines.append(f"ExecStart={' '.join(quoted(word, is_command=True) for word in unit.command)}")
    text = "\n".join(lines) + "\n" + _COMMON.format(start=START_SECONDS, stop=STOP_SECONDS)
    if unit.user is not None:
        text += _SYSTEM
    wanted_by = "default.target" if unit.user is None else "multi-user.target"
    return f"{text}\n[Install]\nWantedBy={wanted_by}\n"


def quoted(word: str, *, is_command: bool = False) -> str:
    """A word as systemd reads it back: `%` and, in commands, `$` stand for themselves."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if is_command:
        word = word.replace("$", "$$")
    return f'"{word}"' if not word or any(char in word for char in " \t'\";#\\") else word
