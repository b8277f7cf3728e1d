"""Addresses of storages."""

from pathlib import Path

import pytest

from quarterdeck.store.blobs.address import S3Address, read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/srv/blobs", Path("/srv/blobs")),
        ("file:///srv/my%20blobs", Path("/srv/my blobs")),
        ("s3://bucket", S3Address("bucket")),
        ("s3://bucket/a/b/?region=eu-west-1", S3Address("bucket", "a/b", None, "eu-west-1")),
        (
            "s3://bucket?endpoint=http%3A%2F%2Fminio%3A9000&path_style=false",
            S3Address("bucket", "", "http://minio:9000", None, False),
        ),
        ("s3://bucket?endpoint=https://minio:9000", S3Address("bucket", "", "https://minio:9000")),
    ],
)
def test_a_folder_or_a_bucket(text: str, address: Path | S3Address) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "gs://bucket",
        "s3://",
        "s3://B_cket",
        "s3://key:secret@bucket",
        "s3://bucket?endpoint=minio:9000",
        "s3://bucket?endpoint=https://user:secret@minio",
        "s3://bucket?regoin=x",
        "s3://bucket?path_style=maybe",
        "s3://bucket?x",
        "file://host/path",
    ],
)
def test_a_malformed_address_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(ValueError, match="QUARTERDECK_BLOBS") as caught:
        read_address(text)
    assert "secret" not in str(caught.value)
