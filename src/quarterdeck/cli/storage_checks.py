"""`doctor`'s check of the storage of files: a folder that can be written, or a bucket that takes and gives a blob."""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from quarterdeck.cli.findings import Finding
from quarterdeck.errors import APIError
from quarterdeck.ids import object_id
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.file_storage import GIB, FilesConfig
from quarterdeck.store.blobs.address import S3Address, read_address
from quarterdeck.store.blobs.folder import MIN_FREE_BYTES
from quarterdeck.store.blobs.interface import BlobNotFoundError, Blobs

SECONDS = 30.0
PROBE = b"quarterdeck doctor"


def storage(environment: Environment, files: FilesConfig) -> Finding:
    """`files`: the settings, for the quota."""
    try:
        address = read_address(environment.blobs) if environment.blobs else environment.state / "blobs"
    except ValueError as error:
        return Finding("missing", "a valid QUARTERDECK_BLOBS", str(error))
    return folder(address, files) if isinstance(address, Path) else asyncio.run(_bucket(address))


def folder(path: Path, files: FilesConfig) -> Finding:
    """Nothing is written."""
    what, there = f"files: folder {path}", path
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            return Finding("missing", what, f"{there} is not a folder: set QUARTERDECK_BLOBS")
        if not os.access(there, os.W_OK | os.X_OK):
            return Finding(
                "missing", what, f"{there} can't be written by this user: chown it, or set QUARTERDECK_BLOBS"
            )
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("missing", what, error.strerror or str(error))
    if free < MIN_FREE_BYTES:
        return Finding("missing", what, "its disk is full: uploads are refused (507)")
    if "max_gb_per_org" in files.model_fields_set and free < files.quota_bytes:
        return Finding(
            "note",
            f"{what}: {free / GIB:.0f} GiB free, less than files.max_gb_per_org ({files.max_gb_per_org:g})",
            "one organisation may fill the disk: lower the quota, or set QUARTERDECK_BLOBS to a larger one",
        )
    return Finding("ok", f"{what}: {free / GIB:.0f} GiB free")


async def _bucket(address: S3Address) -> Finding:
    from quarterdeck.store.blobs.s3 import S3Blobs

    what = f"files: bucket {address.bucket}" + (f" at {address.endpoint}" if address.endpoint else "")
    try:
        blobs = S3Blobs(address)
    except ValueError as error:
        return Finding("missing", what, str(error))
    # Its warnings have no other handler here, and the finding has the reason.
    logging.getLogger("quarterdeck.store.blobs").addHandler(logging.NullHandler())
    try:
        async with asyncio.timeout(SECONDS):
            await try_out(blobs)
    except TimeoutError:
        return Finding("missing", what, f"it does not answer within {SECONDS:g} s: check the endpoint and the network")
    except APIError as error:
        reason = str(error.__cause__ or error).partition("\n")[0][:300]
        return Finding("missing", what, f"{reason}; check bucket, region, AWS_* credentials and this machine's clock")
    return Finding("ok", what)


async def try_out(blobs: Blobs) -> None:
    """Write a blob, read it and delete it. Raises StorageUnavailableError."""
    name = f"probe/{object_id('doctor')}"

    async def pieces() -> AsyncIterator[bytes]:
        yield PROBE

    await blobs.put(name, pieces())
    try:
        try:
            reading = await blobs.open(name)
        except BlobNotFoundError:
            raise APIError("A blob that was written is not there.") from None
        async for _ in reading:
            pass
    finally:
        await blobs.delete(name)
