"""However reads, changes and their announcements interleave: in the end each cached key is the database's."""

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.fakes import FakeKeys, config, key_row

from quarterdeck import ids
from quarterdeck.errors import AuthenticationError
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.rereading import FRESH_SECONDS
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.live import Live
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.terms import Terms

KEYS = 2
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ask",
                "ask",
                "reread",
                "change",
                "revoke",
                "rotate",
                "team",
                "late",
                "lose",
                "turn",
                "turn",
                "turn",
                "fade",
            ]
        ),
        st.integers(0, KEYS - 1),
    ),
    min_size=8,
    max_size=60,
)


class SlowKeys(FakeKeys):
    """Returns the rows as they were when the read started, some turns of the loop later."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def find_all(self, digests: object) -> dict[str, KeyRow]:
        return await self._late(await super().find_all(list(digests)))  # type: ignore[call-overload]

    async def retrieve(self, id: str, *, org: str) -> KeyRow:
        return await self._late(await super().retrieve(id, org=org))

    async def retrieve_all(self, ids: object) -> dict[str, KeyRow]:
        return await self._late(await super().retrieve_all(list(ids)))  # type: ignore[call-overload]

    async def _late(self, answer: Any) -> Any:
        for _ in range(self._chance.choice((0, 1, 2, 30))):
            await asyncio.sleep(0)
        return answer


class World:
    """A database whose keys change, an authenticator, and announcements that arrive late, in order, or not at all."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.keys = SlowKeys(self.chance)
        self.secrets = [f"s{i}" for i in range(KEYS)]
        self.rotations = 0
        for i, secret in enumerate(self.secrets):
            self.keys.put(secret, key_row(id=f"key_{i}", team=f"team_{i % 2}"))
        self.revision = 0
        self.words: list[Change] = []
        self.was_lost = False
        self.tasks: list[asyncio.Task[None]] = []
        self.now = 1000.0
        # A look-up stops reading again after some changes; this one never does.
        self.subject = Authenticator(
            self.keys, Live(config()), wall=lambda: self.now, clock=lambda: self.now, read_again=1000
        )

    async def step(self, what: str, index: int) -> None:
        digest = ids.digest(self.secrets[index])
        row = self.keys.rows[digest]
        if what == "ask":
            self.tasks.append(asyncio.create_task(self.ask(self.secrets[index])))
        elif what == "reread":
            self.tasks.append(asyncio.create_task(self.reread(index)))
        elif what == "change":
            self.keys.rows[digest] = replace(row, limits=Limits(max_tokens=self.chance.randrange(1, 99)))
            self.tell(Change("default", key=row.id))
        elif what == "revoke":
            self.keys.rows[digest] = replace(row, revoked=1.0)
            self.tell(Change("default", key=row.id))
        elif what == "rotate":
            del self.keys.rows[digest]
            self.rotations += 1
            self.secrets[index] = f"s{index}-{self.rotations}"
            self.keys.put(self.secrets[index], row)
            self.tell(Change("default", key=row.id))
        elif what == "team":
            terms = Terms(Limits(max_tokens=self.chance.randrange(1, 99)))
            for known, other in self.keys.rows.items():
                if other.team == row.team:
                    self.keys.rows[known] = replace(other, of_team=terms)
            self.tell(Change("default", team=row.team))
        elif what == "late":
            await self.hear()
        elif what == "lose":
            self.was_lost = self.was_lost or bool(self.words)
            self.words.clear()
        elif what == "fade":
            self.now += FRESH_SECONDS + 1
        else:
            for _ in range(self.chance.randrange(12)):
                await asyncio.sleep(0)

    def tell(self, change: Change) -> None:
        self.revision += 1
        self.words.append(Change(change.org, change.key, change.team, self.revision))

    async def hear(self) -> None:
        words, self.words = self.words, []
        if words:
            await self.subject.catch_up(words)

    async def ask(self, secret: str) -> None:
        with contextlib.suppress(AuthenticationError):
            await self.subject.authenticate(f"Bearer {secret}".encode())

    async def reread(self, index: int) -> None:
        known = self.subject._cache.by_id.get(f"key_{index}")
        if known is None:
            return
        with contextlib.suppress(AuthenticationError):
            await self.subject.reread(known.principal, self.revision)

    async def end(self) -> None:
        """Deliver every announcement; where one was lost, the channel was, and everything is read."""
        if self.was_lost:
            await self.subject.catch_up(None)
        await self.hear()
        await asyncio.gather(*self.tasks)
        await self.subject._reader.idle()
        await asyncio.sleep(0)


@settings(max_examples=60)
@given(steps=STEPS, seed=st.integers(0, 10**6))
def test_in_the_end_each_key_is_what_the_database_says(steps: list[tuple[str, int]], seed: int) -> None:
    async def run() -> None:
        world = World(seed)
        for what, index in steps:
            await world.step(what, index)
        await world.end()
        # A key that is not cached is looked up at its next request. (A team's terms are in its keys' rows.)
        for digest, known in world.subject._cache.by_digest.items():
            assert known.row == world.keys.rows.get(digest)
            assert known.principal == replace(principal_of(known.row, config(), 0), revision=known.principal.revision)
        assert len(world.subject._cache.by_id) == len(world.subject._cache.by_digest)

    asyncio.run(run())
