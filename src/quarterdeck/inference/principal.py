"""Who asks: what a valid key stands for. Made by `gateway/auth`, read by everything below."""

from dataclasses import dataclass

from quarterdeck.settings.limits import Budget, Limits


@dataclass(frozen=True, slots=True)
class Scope:
    """Something that is counted for a request: its key, its team, its organisation."""

    id: str
    """`key:<id>`, `team:<id>`, `org`."""
    limits: Limits
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A key that was found valid. Holds no secret."""

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
    """The org's revision when the key was read: an admission that knows a newer one has the key read again."""
    scopes: tuple[Scope, ...] = ()
    """Those that have a limit or a budget to be counted: the key, then the team, then the org."""
    priority: int = 0
    """0 to 9; under saturation the higher goes first."""
    tags: tuple[str, ...] = ()
