"""What went wrong between us and the hub, in words."""

import errno
import os
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._auth import get_token
from huggingface_hub.utils._http import hf_raise_for_status

from quarterdeck.weights.errors import WeightsError

KNOWN = (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    OSError,
    ValueError,
)
"""What huggingface_hub, its HTTP client and the file system raise."""


def raise_for_status(response: httpx2.Response) -> None:
    """Raises huggingface_hub's errors."""
    hf_raise_for_status(response)


def translate(error: Exception, repository: str, revision: str, folder: Path) -> WeightsError:
    """`folder`: where files are put."""
    hub = constants.ENDPOINT
    has_token = bool(get_token())
    if isinstance(error, OfflineModeIsEnabled):
        return WeightsError(
            "offline", f"{repository} is not on this machine, and HF_HUB_OFFLINE forbids to ask {hub} for it."
        )
    if isinstance(error, GatedRepoError):  # a subclass of RepositoryNotFoundError
        if has_token:
            return WeightsError(
                "gated",
                f"{repository} is gated, and the account of this token has no access to it: ask for it at "
                f"{hub}/{repository}.",
            )
        return WeightsError(
            "gated",
            f"{repository} is gated: accept its terms at {hub}/{repository}, then set HF_TOKEN to a token of that "
            f"account ({hub}/settings/tokens) and start the platform again.",
        )
    if isinstance(error, RepositoryNotFoundError):
        why = "or the token has no access to it" if has_token else "or it is private and HF_TOKEN is not set"
        return WeightsError("repository_not_found", f"There is no repository '{repository}' at {hub}, {why}.")
    if isinstance(error, HFValidationError):
        return WeightsError("repository_not_found", f"'{repository}' is not the name of a repository (org/name).")
    if isinstance(error, RevisionNotFoundError):
        return WeightsError("revision_not_found", f"{repository} has no revision '{revision}'.")
    if isinstance(error, HfHubHTTPError):
        return _of_status(error, repository, hub)
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        why = str(error) or type(error).__name__
        return WeightsError(
            "hub_unreachable",
            f"Can't reach {hub} ({why}). Check the network, HTTPS_PROXY or HF_ENDPOINT; without Internet, use a folder "
            "with the weights.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WeightsError("disk_full", f"No space left in {folder}. Free some; the download will be resumed.")
    return WeightsError("failed", f"The download of {repository} failed: {_first_line(error)}")


def _of_status(error: HfHubHTTPError, repository: str, hub: str) -> WeightsError:
    status = error.response.status_code
    if status in (401, 403):
        where = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of `hf auth login`"
        return WeightsError(
            "unauthorized", f"{hub} refuses {where} ({status}): is it valid, and may it read {repository}?"
        )
    if status == 429:
        return WeightsError("hub_unreachable", f"{hub} limits requests (429). A token in HF_TOKEN has a higher limit.")
    return WeightsError("hub_unreachable", f"{hub} answered {status} for {repository}.")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
