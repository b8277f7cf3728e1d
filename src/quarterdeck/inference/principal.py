"""Who asks: what a valid key stands for. Made by `gateway/auth`, read by everything below."""

from dataclasses import dataclass

from quarterdeck.settings.limits import Limits


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
