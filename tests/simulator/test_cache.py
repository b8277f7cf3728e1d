from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.simulator.scheduling.block_pool import Blocks, Lease, chain

SIZE = 4


def pieces(count: int, first: str = "a") -> list[str]:
    return [f"{first}{number}" for number in range(count)]


def opened(blocks: Blocks, prompt: list[str]) -> Lease:
    lease = blocks.open([(chain(prompt, SIZE), len(prompt))], 1 if len(prompt) % SIZE else 0)
    assert lease is not None
    return lease


def test_an_equal_beginning_is_cached() -> None:
    blocks = Blocks(100, SIZE)
    assert opened(blocks, pieces(14)).cached_tokens == 0
    assert opened(blocks, [*pieces(8), "other", "end", "of", "it"]).cached_tokens == 8


def test_the_last_token_is_always_computed() -> None:
    blocks = Blocks(100, SIZE)
    opened(blocks, pieces(8))
    assert opened(blocks, pieces(8)).cached_tokens == 4


def test_a_block_stays_when_its_request_has_ended_until_room_is_needed() -> None:
    blocks = Blocks(4, SIZE)
    blocks.close(opened(blocks, pieces(12)))
    assert blocks.used == 0
    assert blocks.known(chain(pieces(12), SIZE)) == 3
    opened(blocks, pieces(8, "b"))
    assert blocks.known(chain(pieces(12), SIZE)) == 2, "the end of the chain goes first"


def test_what_was_written_is_cached_too() -> None:
    blocks = Blocks(100, SIZE)
    lease = opened(blocks, pieces(6))
    whole = chain(pieces(12), SIZE)
    blocks.close(lease, whole[1:])
    assert opened(blocks, pieces(13)).cached_tokens == 12


def test_no_room_is_said() -> None:
    blocks = Blocks(2, SIZE)
    lease = opened(blocks, pieces(8))
    assert blocks.open([([], 1)], 1) is None
    assert not blocks.grow(lease, 1)
    assert blocks.usage == 1


def test_a_salt_shares_nothing() -> None:
    assert chain(pieces(8), SIZE, "one")[0] != chain(pieces(8), SIZE, "two")[0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from("abc"), st.booleans()), max_size=40))
def test_the_books_balance(steps: list[tuple[int, str, bool]]) -> None:
    blocks = Blocks(16, SIZE)
    open_leases: list[Lease] = []
    for length, first, close in steps:
        prompt = pieces(length, first)
        lease = blocks.open([(chain(prompt, SIZE), length)], 1 if length % SIZE else 0)
        if lease is not None:
            open_leases.append(lease)
        if close and open_leases:
            blocks.close(open_leases.pop(0))
        assert 0 <= blocks.used <= blocks.total
    for lease in open_leases:
        blocks.close(lease)
    assert blocks.used == 0
