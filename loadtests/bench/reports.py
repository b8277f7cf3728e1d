"""Usage reports over a large ledger on Postgres, from the ledger alone and with roll-ups.

    .envs/core/bin/python loadtests/bench/reports.py --rows 10000000

Fills a ledger with a month of requests, asks for the month by day and model, rolls it up as the worker does, and asks
again. Ten million rows take some 6 GB and ten minutes. Both answers must be equal.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import JSON, Boolean, Text, text
from tests.servers import PostgresServer

from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.ledger_tables import ledger
from quarterdeck.store.usage import Usage
from quarterdeck.store.usage_rollups import CLOSE_SECONDS, HOUR, Rollups

DAY = 24 * HOUR
DAYS = 30
START = 1_750_000_000 // DAY * DAY
END = START + DAYS * DAY
KEYS, TEAMS, MODELS = 100, 10, 8
ROWS_AT_ONCE = 500_000

VALUES = {
    "id": "'req_' || lpad(to_hex(n), 32, '0')",
    "org": "'default'",
    "team": f"'team-' || n % {TEAMS}",
    "key": f"'key_' || n % {KEYS}",
    "model": f"'model-' || (n / 7) % {MODELS}",
    "operation": "'chat'",
    "started": f"{START} + CAST(n AS double precision) * {DAYS * DAY} / CAST(:rows AS double precision)",
    "ended": f"{START} + CAST(n AS double precision) * {DAYS * DAY} / CAST(:rows AS double precision) + 1",
    "status": "'ok'",
    "http_status": "200",
    "input_tokens": "300 + n % 700",
    "cached_tokens": "n % 100",
    "output_tokens": "20 + n % 300",
    "cost": "(n % 100000) * 0.000000137",
    "attempts": "'[]'",
}
"""SQL for the columns of a row, by its number `n`. Other columns that need a value get an empty one."""


async def fill(database: Database, rows: int) -> None:
    values = {column.name: _empty(column.type) for column in ledger.c if not column.nullable} | VALUES
    columns = ", ".join(f'"{name}"' for name in values)
    series = "generate_series(CAST(:a AS bigint), CAST(:b AS bigint)) n"
    insert = f"INSERT INTO ledger ({columns}) SELECT {', '.join(values.values())} FROM {series}"  # noqa: S608  # ours
    for first in range(0, rows, ROWS_AT_ONCE):
        async with database.begin(600) as connection:
            last = min(first + ROWS_AT_ONCE, rows) - 1
            await connection.execute(text(insert), {"a": first, "b": last, "rows": float(rows)})
    async with database.begin(600) as connection:
        await connection.execute(text("ANALYZE ledger"))


def _empty(kind: object) -> str:
    match kind:
        case JSON():
            return "'[]'"
        case Text():
            return "''"
        case Boolean():
            return "false"
    return "0"


async def timed(records: Ledger, times: int) -> tuple[list[Usage], float]:
    """The report, and the median of its seconds."""
    where = LedgerFilter(org="default", since=float(START), until=float(END))
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        found = await records.sum(where, by=("model",), bucket_seconds=DAY)
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds)


async def measure(url: str, rows: int) -> None:
    database = Database(url, timeout=600, report_seconds=600)
    try:
        await database.migrate()
        await fill(database, rows)
        records, rollups = Ledger(database), Rollups(database)
        plain, before = await timed(records, 3)
        began, hours = time.perf_counter(), 1
        while await rollups.advance("default", END + CLOSE_SECONDS + HOUR):
            hours += 1
        rolling = time.perf_counter() - began
        async with database.begin(600) as connection:
            await connection.execute(text("ANALYZE usage_rollups"))
        rolled, after = await timed(records, 9)
        assert rolled == plain, "the reports differ"
    finally:
        await database.close()
    print(f"{rows:,} requests in {DAYS} days; a month by day and model ({len(rolled)} rows of the report):")
    print(f"  from the ledger alone  {before:8.3f} s")
    print(f"  with roll-ups          {after:8.3f} s")
    print(f"  rolling up             {rolling / hours * 1000:8.1f} ms an hour of requests ({hours} hours)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    folder = Path(tempfile.mkdtemp(prefix="qd-reports-"))
    data = folder / "data"
    data.mkdir()
    server = PostgresServer(folder, data)
    try:
        server.start()
        asyncio.run(measure(server.url("postgres"), rows))
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
