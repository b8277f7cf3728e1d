"""Python and Lua agree on periods."""

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from quarterdeck.accounting.periods import PERIODS, period_kind, period_number, period_start
from quarterdeck.net.lua_scripts import read_lua
from quarterdeck.net.redis import Redis, Script

KEY, TEAM, ORGS = "key:key_1", "team:default", "org"
DAY = 86_400


PERIOD_OF = Script(
    read_lua("quarterdeck.accounting", "period.lua") + "return period_of(tonumber(ARGV[1]), tonumber(ARGV[2]))"
)


@pytest.mark.parametrize("period", PERIODS[1:])
async def test_redis_and_we_mean_the_same_period(redis: Redis, period: str) -> None:
    """Each day of twelve years, including leap years and the turn of a century."""
    kind = period_kind(period)
    for year in (2023, 2096):
        start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        seconds = [start + day * DAY + edge for day in range(6 * 365) for edge in (0, DAY - 1)]
        numbers = await asyncio.gather(*[redis.run(PERIOD_OF, (), (kind, second)) for second in seconds])
        starts = [period_start(period, second) for second in seconds]
        assert sorted(numbers) == numbers
        assert [period_number(period, second) for second in seconds] == numbers
        turns = [a != b for a, b in itertools.pairwise(numbers)]
        assert turns == [a != b for a, b in itertools.pairwise(starts)]
        assert sum(turns) == {"day": 2189, "week": 313, "month": 71, "total": 0}[period]
