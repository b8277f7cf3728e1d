"""Stored responses: `python -m loadtests.bench.responses` (`make bench-responses`).

A gateway and a simulated engine that answers at once, with a database that is empty and then holds many responses and
stored chat completions. One client, one request at a time, kinds in turn: what a response takes more than the same
chat, and what reading takes. Percentiles in ms, at the client.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import ColumnElement, Connection, Table, insert, literal_column, select, text
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import PostgresServer, RedisServer, short_folder

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.response_tables import chat_completions, responses, stored_items

CONFIG = "models: [{name: chat, engine: {source: ./chat, context: 4096}}]\n"
SECRET = "sk-qd-bench"  # noqa: S105  # of a platform that lives for a minute
QUESTION = "What is in the harbour master's ledger? " * 4
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Bench:
    database: Database
    client: httpx.Client
    rounds: int

    def timed(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[float, dict[str, Any]]:
        began = time.perf_counter()
        answer = self.client.request(method, path, json=body)
        took = (time.perf_counter() - began) * 1000
        answer.raise_for_status()
        return took, answer.json()

    def chat(self, **more: Any) -> tuple[float, dict[str, Any]]:
        messages = [{"role": "user", "content": QUESTION}]
        return self.timed(
            "POST", "/v1/chat/completions", {"model": "chat", "messages": messages, "max_tokens": 16, **more}
        )

    def response(self, **more: Any) -> tuple[float, dict[str, Any]]:
        return self.timed(
            "POST", "/v1/responses", {"model": "chat", "input": QUESTION, "max_output_tokens": 16, **more}
        )

    async def filled(self, count: int) -> None:
        """Copy one stored response, its items and one stored chat completion until there are `count` of each."""
        _, response = self.response()
        _, chat = self.chat(store=True)
        async with self.database.begin() as connection:
            for table, key, value in (
                (responses, "id", response["id"]),
                (stored_items, "owner", response["id"]),
                (chat_completions, "id", chat["id"]),
            ):
                await connection.run_sync(_copy, table, key, value, count)
            if not self.database.is_sqlite:  # SQLite's statistics are not made by the platform either
                await connection.execute(text("ANALYZE"))

    def measured(self, copies: int) -> Times:
        found: Times = {}
        chosen = random.Random(1)
        for _ in range(self.rounds):
            stored = self.response()
            copy = f"copy{chosen.randrange(copies):09}" if copies else ""
            known = f"/v1/responses/resp_{copy}" if copies else f"/v1/responses/{stored[1]['id']}"
            page = "/v1/chat/completions?limit=20"
            answers = {
                "chat": self.chat(),
                "response, `store: false`": self.response(store=False),
                "response, stored": stored,
                "response, continued": self.response(previous_response_id=stored[1]["id"]),
                "retrieve": self.timed("GET", known),
                "input items": self.timed("GET", f"{known}/input_items"),
                "stored chats, first page": self.timed("GET", page),
            }
            if copies:
                answers["stored chats, a later page"] = self.timed("GET", f"{page}&after=chatcmpl-{copy}")
            for name, (took, _) in answers.items():
                found.setdefault(name, []).append(took)
        return found


def _copy(connection: Connection, table: Table, key: str, value: str, count: int) -> None:
    """Rows as those whose `key` is `value`, under other ids and an hour earlier, a millisecond apart."""
    connection.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS bench_series (n INTEGER)"))
    connection.execute(text("DELETE FROM bench_series"))
    series = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :count) SELECT n FROM n"
    connection.execute(text(f"INSERT INTO bench_series {series}"), {"count": count})
    prefix = "chatcmpl-copy" if table is chat_completions else "resp_copy"
    name: ColumnElement[str] = literal_column(f"'{prefix}' || substr('000000000' || bench_series.n, -9)")
    if connection.dialect.name == "postgresql":
        name = literal_column(f"'{prefix}' || lpad(bench_series.n::text, 9, '0')")
    columns: list[ColumnElement[Any]] = []
    for column in table.columns:
        if column.name == key:
            columns.append(name)
        elif column.name == "created":
            columns.append(table.c.created - 3600 - literal_column("bench_series.n / 1000.0"))
        else:
            columns.append(column)
    rows = select(*columns).select_from(table, text("bench_series")).where(table.c[key] == value)
    connection.execute(insert(table).from_select([column.name for column in table.columns], rows))


@contextlib.contextmanager
def platform(kind: str, rounds: int) -> Iterator[Bench]:
    folder = short_folder()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
        if kind == "postgres":
            data = short_folder()
            stack.callback(shutil.rmtree, data)
            postgres = PostgresServer(folder, data)
            postgres.start()
            stack.callback(postgres.stop)
            url = postgres.url()
        redis = RedisServer(folder)
        simulator = SimulatorProcess(folder, ["--model", "chat"])
        for server in (redis, simulator):
            server.start()
            stack.callback(server.stop)
        asyncio.run(_prepared(url))
        where = {
            "QUARTERDECK_ENGINE_URL": simulator.url,
            "QUARTERDECK_REDIS_URL": redis.url(0),
            "QUARTERDECK_DATABASE_URL": url,
        }
        gateway = GatewayProcess(folder, CONFIG, where)
        gateway.start()
        stack.callback(gateway.stop)
        client = stack.enter_context(
            httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {SECRET}"}, timeout=60)
        )
        yield Bench(Database(url), client, rounds)


async def _prepared(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await KeyStore(database).create(secret=SECRET, name="bench")
    await database.close()


def table(found: dict[str, Times]) -> str:
    """Markdown: p50 and p95 by kind of request and by filling, and what a response takes more than a chat."""
    names = list(found)
    lines = ["| p50 / p95, ms | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for kind in next(reversed(found.values())):
        cells = [_cell(times[kind]) if kind in times else "–" for times in found.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    more = [
        f"{statistics.median(times['response, stored']) - statistics.median(times['chat']):.2f}"
        for times in found.values()
    ]
    lines.append("| a stored response beyond a chat, p50 | " + " | ".join(more) + " |")
    return "\n".join(lines)


def _cell(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} / {statistics.quantiles(times, n=20)[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="stored responses and stored chat completions")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    found: dict[str, Times] = {}
    for kind in ("sqlite", "postgres"):
        with platform(kind, options.rounds) as bench:
            bench.measured(0)  # warm
            found[f"{kind}, empty"] = bench.measured(0)
            asyncio.run(bench.filled(options.count))
            bench.measured(options.count)
            found[f"{kind}, {options.count:,}"] = bench.measured(options.count)
    print(table(found))


if __name__ == "__main__":
    main()
