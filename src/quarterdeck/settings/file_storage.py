"""Files of the API: how large they may be, and how much an organisation may store."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_PARTS = 10_000
"""Of one upload."""


class FilesConfig(BaseModel):
    """`/v1/files` and `/v1/uploads`. Where contents are stored: QUARTERDECK_BLOBS."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_file_mb: PositiveInt = Field(default=512, le=1024 * 1024)
    """Largest file of `POST /v1/files`, in MiB. 512: OpenAI's. A larger one is sent in parts (`/v1/uploads`)."""
    max_upload_mb: PositiveInt = Field(default=8192, le=1024 * 1024)
    """Largest file of `/v1/uploads`, in MiB. 8192: OpenAI's."""
    max_part_mb: PositiveInt = Field(default=64, le=5 * 1024)
    """Largest part of an upload, in MiB. 64: OpenAI's."""
    max_gb_per_org: PositiveFloat = 100
    """What the files and parts of one organisation may have together, in GiB. Results of batches count, and are stored
    in any case; above it no files are accepted and no batches created. 100: OpenAI's former quota; choose it by the
    size of your storage."""
    max_input_mb: PositiveInt = Field(default=20, le=512)
    """The most that the files which one request names by `file_id` may have together, in MiB. 20: a model reads a
    part of that; pictures are sent on in base64."""

    @property
    def max_file_bytes(self) -> int:
        return self.max_file_mb * MIB

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * MIB

    @property
    def max_part_bytes(self) -> int:
        return self.max_part_mb * MIB

    @property
    def quota_bytes(self) -> int:
        return int(self.max_gb_per_org * GIB)

    @property
    def max_input_bytes(self) -> int:
        return self.max_input_mb * MIB
