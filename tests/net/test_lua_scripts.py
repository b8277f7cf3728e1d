import pytest

from quarterdeck.accounting import scripts
from quarterdeck.inference.cache import store
from quarterdeck.net.lua_scripts import INCLUDE, PackagedScript, read_lua
from quarterdeck.net.redis import Redis, Script
from quarterdeck.worker import streams

SCRIPTS = [
    value
    for module in (scripts, store, streams)
    for value in vars(module).values()
    if isinstance(value, PackagedScript)
]


def test_an_include_stands_for_the_text_of_the_file() -> None:
    source = read_lua("quarterdeck.accounting", "reserve.lua")
    assert read_lua("quarterdeck.accounting", "period.lua") in source
    assert INCLUDE not in source


def test_a_script_is_read_at_its_first_use_and_known_by_its_hash() -> None:
    script = PackagedScript("quarterdeck.accounting", "settle")
    assert "source" not in vars(script)
    assert script.sha == Script(script.source).sha
    assert PackagedScript("quarterdeck.accounting", "settle") == script


def test_a_script_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        _ = PackagedScript("quarterdeck.accounting", "nothing").source


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
async def test_redis_compiles_every_script(redis: Redis, script: PackagedScript) -> None:
    assert await redis.call("SCRIPT", "LOAD", script.source) == script.sha.encode()
