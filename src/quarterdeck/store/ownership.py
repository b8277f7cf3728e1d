"""Whose stored objects a key may see: its team's."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table

from quarterdeck.store.ledger_insert import MAX_TEXT


@dataclass(frozen=True, slots=True)
class Owner:
    """A team of an organisation, and the key that acts for it."""

    org: str
    team: str
    key: str
    since: float = 0.0
    """Objects before then are of a deleted team of the same name. Unix seconds."""

    def owns(self, table: Table) -> ColumnElement[bool]:
        """The condition that a row of this table is the team's."""
        mine = (table.c.org == self.org) & (table.c.team == self.team)
        return mine & (table.c.created >= self.since) if self.since else mine


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that an object was made by: its deletion, and that of its user or session, deletes the object."""

    request: str
    user: str | None = None
    session: str | None = None


def storable(text: str | None) -> str | None:
    """A user or a session as columns have it, in the ledger too. None: there is none."""
    return text.replace("\x00", "\ufffd")[:MAX_TEXT] if text else None
