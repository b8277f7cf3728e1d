"""The store of blobs that the environment names."""

from pathlib import Path

from quarterdeck.settings.environment import Environment
from quarterdeck.store.blobs.absent import NoBlobs
from quarterdeck.store.blobs.address import read_address
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.blobs.s3 import S3Blobs


def open_blobs(environment: Environment) -> Blobs:
    """Raises ValueError for an address that can't be used."""
    if environment.blobs is None:
        if environment.config_map is not None:  # a pod's own folder ends with it
            return NoBlobs()
        return FolderBlobs(environment.state / "blobs")
    address = read_address(environment.blobs)
    return FolderBlobs(address) if isinstance(address, Path) else S3Blobs(address)
