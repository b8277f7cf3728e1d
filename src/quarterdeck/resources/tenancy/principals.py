"""The principal of a key: its row, its team's and its organisation's, under the configuration. Pure.

quarterdeck.yaml's terms replace the database's for what it names. A request is counted against every scope with a limit
or a budget. Computed when a key is read or the configuration changes, never per request.
"""

from quarterdeck.accounting.principal import Principal, Scope
from quarterdeck.accounting.scopes import team_scope
from quarterdeck.content import strictest
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Limits
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.store.terms import Terms

UNLIMITED = Limits()


def principal_of(row: KeyRow, config: Config, revision: int) -> Principal:
    """`revision`: the organisation's when the row was read."""
    key, tags = key_terms(row, config)
    team, org = team_terms(row.org, row.team, row.of_team, config), org_terms(row.org, row.of_org, config)
    scopes: tuple[Scope, ...] = (Scope(f"key:{row.id}", key.limits or config.limits, key.budget),)
    for id, terms in ((team_scope(row.team, row.team_remade), team), ("org", org)):
        scopes += (Scope(id, terms.limits or UNLIMITED, terms.budget),)
    priority = key.priority if key.priority is not None else team.priority
    return Principal(
        key=row.id,
        name=row.name,
        org=row.org,
        team=row.team,
        limits=_with_max_tokens(scopes),
        is_admin=row.is_admin,
        models=row.models,
        expires=row.expires,
        revision=revision,
        scopes=tuple(scope for scope in scopes if is_counted(scope)),
        team_remade=row.team_remade,
        priority=priority or 0,
        tags=tags,
        content=strictest((key.content, team.content, org.content)),
    )


def key_terms(row: KeyRow, config: Config) -> tuple[Terms, tuple[str, ...]]:
    """The key's own terms and tags. Limits of None: the default limits apply."""
    named = config.keys.get(row.name) if row.org == DEFAULT_ORG else None
    if named is None:
        return Terms(row.limits, row.budget, row.priority, row.content), row.tags
    return Terms(named.limits, named.budget, named.priority, named.content), named.tags


def team_terms(org: str, team: str, stored: Terms, config: Config) -> Terms:
    """The team's terms; `stored` are the database's."""
    named = config.teams.get(team) if org == DEFAULT_ORG else None
    return stored if named is None else Terms(named.limits, named.budget, named.priority, named.content)


def org_terms(org: str, stored: Terms, config: Config) -> Terms:
    """The organisation's terms; `stored` are the database's."""
    if org != DEFAULT_ORG or config.org is None:
        return stored
    return Terms(config.org.limits, config.org.budget, content=config.org.content)


def org_content_days(org: str, stored: float | None, config: Config) -> float | None:
    """Days after which the organisation's contents are deleted; `stored` are the database's. None: the platform's."""
    return config.org.content_days if org == DEFAULT_ORG and config.org is not None else stored


def is_counted(scope: Scope) -> bool:
    """Whether admission counts anything for it; `max_tokens`, the size of one request, is checked elsewhere."""
    limits = scope.limits
    counts = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)
    return scope.budget is not None or any(count is not None for count in counts)


def _with_max_tokens(scopes: tuple[Scope, ...]) -> Limits:
    """The key's limits, with the smallest `max_tokens` of its scopes."""
    own = scopes[0].limits
    bounds = [scope.limits.max_tokens for scope in scopes if scope.limits.max_tokens is not None]
    smallest = min(bounds, default=None)
    return own if smallest == own.max_tokens else own.model_copy(update={"max_tokens": smallest})
