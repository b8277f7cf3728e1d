"""Who asks: what a valid key stands for. Made by `gateway/auth`, read by everything below."""

from dataclasses import dataclass, field

from quarterdeck.accounting.scopes import Counters, Scope, is_limited
from quarterdeck.settings.limits import Limits

__all__ = ["Principal", "Scope"]


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
    counters: Counters = field(init=False, repr=False, compare=False)
    """The scopes in the words of admission."""

    def __post_init__(self) -> None:
        scopes = self.scopes
        if not scopes and is_limited(self.limits):
            scopes = (Scope(f"key:{self.key}", self.limits),)
        object.__setattr__(self, "counters", Counters(self.org, scopes))
