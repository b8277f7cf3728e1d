"""Settings of a valid configuration that can't both be meant, such as a file limit above the quota. Pure."""

from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.settings.config import Config
from quarterdeck.settings.file_storage import MAX_PARTS, MIB, FilesConfig
from quarterdeck.settings.tools import ToolsConfig


def contradictions(config: Config) -> list[str]:
    """A line for each, with what to do."""
    return [*_files(config.files), *_tools(config.tools), *_batches(config.batches)]


def _files(files: FilesConfig) -> list[str]:
    found = []
    for name, largest in (("max_file_mb", files.max_file_bytes), ("max_upload_mb", files.max_upload_bytes)):
        if largest > files.quota_bytes:
            found.append(
                f"files.{name}: a file of {largest // MIB} MiB is above the quota of an organisation,"
                f" {files.max_gb_per_org:g} GiB; raise files.max_gb_per_org or lower this"
            )
    if files.max_part_bytes * MAX_PARTS < files.max_upload_bytes:
        found.append(
            f"files.max_part_mb: {MAX_PARTS} parts of {files.max_part_mb} MiB, the most that an upload has, are less"
            " than files.max_upload_mb; raise this or lower that"
        )
    return found


def _tools(tools: ToolsConfig) -> list[str]:
    found = []
    servers = [(f"mcp_servers[{each.label}]", each) for each in tools.mcp_servers]
    calls = [("call_timeout_seconds", tools.call_timeout_seconds)]
    calls += [
        (f"{name}.timeout_seconds", each.timeout_seconds)
        for name, each in (*servers, *((f"http_apis[{each.label}]", each) for each in tools.http_apis))
        if each.timeout_seconds is not None
    ]
    for name, seconds in calls:
        if seconds > tools.max_seconds:
            found.append(
                f"tools.{name}: one call may take {seconds:g} s, longer than all calls of a response"
                f" (tools.max_seconds: {tools.max_seconds:g}); raise that or lower this"
            )
    return found


def _batches(batches: BatchesConfig) -> list[str]:
    if batches.busy_share > batches.idle_share:
        return [
            f"batches.busy_share: {batches.busy_share:g} is more than batches.idle_share ({batches.idle_share:g}):"
            " batches would get more of an endpoint that is busy than of an idle one; lower this"
        ]
    return []
