"""Where blobs are stored, read from QUARTERDECK_BLOBS. Pure."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OPTIONS = ("endpoint", "region", "path_style")


@dataclass(frozen=True, slots=True)
class S3Address:
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """None: AWS."""
    region: str | None = None
    path_style: bool = True
    """Whether a server at `endpoint` is asked for `/bucket/key`, as most are, and not for `bucket.endpoint`."""


def read_address(text: str) -> Path | S3Address:
    """A folder's path, or `s3://bucket/prefix?endpoint=https://…&region=…&path_style=false`. Raises ValueError."""
    if "://" not in text:
        return Path(text).expanduser().absolute()
    try:
        url = urlsplit(text)
        options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise ValueError("QUARTERDECK_BLOBS is malformed") from None
    if url.scheme == "file" and url.path.startswith("/") and not (url.netloc or options):
        return Path(unquote(url.path))
    if url.scheme != "s3":
        raise ValueError("QUARTERDECK_BLOBS is the path of a folder, or s3://bucket/prefix")
    if url.username is not None or url.password is not None:
        raise ValueError("QUARTERDECK_BLOBS has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not _BUCKET.fullmatch(url.netloc):
        raise ValueError(f"QUARTERDECK_BLOBS: {url.netloc[:100]!r} is not the name of a bucket")
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ValueError(f"QUARTERDECK_BLOBS: unknown option {unknown[0][:100]!r}; it has {', '.join(_OPTIONS)}")
    endpoint = options.get("endpoint")
    if endpoint is not None and not _is_origin(endpoint):
        raise ValueError("QUARTERDECK_BLOBS: `endpoint` must be an http:// or https:// URL")
    path_style = options.get("path_style", "true")
    if path_style not in ("true", "false"):
        raise ValueError("QUARTERDECK_BLOBS: `path_style` must be true or false")
    return S3Address(
        url.netloc, unquote(url.path).strip("/"), endpoint, options.get("region") or None, path_style == "true"
    )


def _is_origin(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.username is None and url.port != 0
    except ValueError:
        return False
