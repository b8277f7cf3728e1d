"""`quarterdeck cache`."""

from quarterdeck.cli import cache


def test_the_cache_is_told_in_a_line() -> None:
    held = {"entries": 3, "bytes": 3 * 2**20 // 2, "max_bytes": 64 * 2**20, "is_on": True}
    assert cache.cache_text(held) == "3 answers, 1.5 of 64 MiB"
    assert "caching is not enabled for any model" in cache.cache_text(held | {"is_on": False})
