"""Approvals of tool calls: requests in earlier output, and a client's answers to them. Pure."""

from collections.abc import Iterable, Sequence

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses.items import Item


def approved(history: Sequence[Item], given: Iterable[Item]) -> list[Item]:
    """The approval requests whose calls are to be made now: approved by items of this input, and not called before.
    Raises BadRequestError for an answer without its request."""
    requests = {item["id"]: item for item in history if item["type"] == "mcp_approval_request"}
    called = {item.get("approval_request_id") for item in history if item["type"] == "mcp_call"}
    found: dict[str, Item] = {}
    for item in given:
        if item["type"] != "mcp_approval_response":
            continue
        asked = item["approval_request_id"]
        if asked not in requests:
            raise BadRequestError(
                f"No approval request found with id '{asked[:100]}'.", param="input", code="approval_request_not_found"
            )
        if item["approve"] and asked not in called:
            found[asked] = requests[asked]
    return list(found.values())


def refused(items: Iterable[Item]) -> dict[str, str]:
    """The reasons of calls that were not approved, by their requests' ids."""
    return {
        item["approval_request_id"]: item.get("reason") or ""
        for item in items
        if item["type"] == "mcp_approval_response" and not item["approve"]
    }
