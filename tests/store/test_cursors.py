"""A page begins in the index, not at its beginning."""

from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql

from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.response_tables import chat_completions


async def test_postgres_starts_at_the_cursors_place_of_the_index(postgres_url: str) -> None:
    database = Database(postgres_url)
    mine = (chat_completions.c.org == "acme") & (chat_completions.c.team == "red")
    place = chat_completions.c.created.desc(), chat_completions.c.id.desc()
    query = select(chat_completions.c.id).where(mine, beyond(chat_completions, 5.0, "chatcmpl-1")).order_by(*place)
    compiled = query.limit(21).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    async with database.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        await connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join((await connection.execute(text(f"EXPLAIN {compiled}"))).scalars())
    await database.close()
    (condition,) = (line for line in plan.splitlines() if "Index Cond" in line)
    assert "ROW(created, id) < ROW(" in condition
    assert "Filter" not in plan
    assert "Sort" not in plan
