"""Who sends a request: the meaning of a valid API key. Built by `gateway/auth`, used by all layers below."""

from dataclasses import dataclass, field

from quarterdeck.accounting.scopes import Scope, ScopeSet, is_limited
from quarterdeck.content import Level
from quarterdeck.settings.limits import Limits

__all__ = ["Principal", "Scope"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A valid key. Holds no secret."""

    key: str
    """The key's id, `key_…`."""
    name: str
    org: str
    team: str
    limits: Limits
    is_admin: bool = False
    models: frozenset[str] | None = None
    """The model names it may use; None: all."""
    expires: float | None = None
    """Unix seconds after which it is refused; None: never."""
    revision: int = 0
    """The org's revision when the key was read: an admission that sees a newer one has the key read again."""
    scopes: tuple[Scope, ...] = ()
    """Those with a limit or a budget: the key, then the team, then the org."""
    team_remade: float | None = None
    """When its team was made of a deleted one of the same name, whose cached answers are not its own. Unix seconds."""
    priority: int = 0
    """0 to 9; under saturation the higher is served first."""
    tags: tuple[str, ...] = ()
    content: Level | None = None
    """What is kept of its inputs and outputs: the strictest of what key, team and org say. None: none of them says."""
    max_tokens: int | None = field(init=False, repr=False, compare=False)
    """`limits.max_tokens`, as `settings.snapshot` says why."""
    scope_set: ScopeSet = field(init=False, repr=False, compare=False)
    """The scopes as arguments of admission's scripts."""

    def __post_init__(self) -> None:
        scopes = self.scopes
        if not scopes and is_limited(self.limits):
            scopes = (Scope(f"key:{self.key}", self.limits),)
        object.__setattr__(self, "max_tokens", self.limits.max_tokens)
        object.__setattr__(self, "scope_set", ScopeSet(self.org, scopes))
