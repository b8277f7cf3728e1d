"""Filters of a list or a report that found nothing: a name that nothing has is refused, because it may be misspelt.

Called only for an empty result: names of deleted teams and removed models still find what the ledger has of them.
"""

from quarterdeck.errors import NotFoundError
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.resources.tenancy.objects import is_team_in_config


async def refuse_unknown_filters(
    parts: Parts, org: str, *, key: str | None = None, team: str | None = None, model: str | None = None
) -> None:
    """Raises NotFoundError."""
    if key is not None:
        await parts.keys.retrieve(key, org=org)
    if team is not None and not is_team_in_config(parts.config, org, team):
        await parts.teams.retrieve(team, org=org)
    if model is not None and model not in parts.directory.current.names:
        raise NotFoundError(f"No such model: '{model}'.", param="model", code="model_not_found")
