from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.simulator.scheduling.block_pool import BlockAllocation, BlockPool, block_hashes

SIZE = 4


def pieces(count: int, first: str = "a") -> list[str]:
    return [f"{first}{number}" for number in range(count)]


def opened(blocks: BlockPool, prompt: list[str]) -> BlockAllocation:
    allocation = blocks.allocate([(block_hashes(prompt, SIZE), len(prompt))], 1 if len(prompt) % SIZE else 0)
    assert allocation is not None
    return allocation


def test_an_equal_beginning_is_cached() -> None:
    blocks = BlockPool(100, SIZE)
    assert opened(blocks, pieces(14)).cached_tokens == 0
    assert opened(blocks, [*pieces(8), "other", "end", "of", "it"]).cached_tokens == 8


def test_the_last_token_is_always_computed() -> None:
    blocks = BlockPool(100, SIZE)
    opened(blocks, pieces(8))
    assert opened(blocks, pieces(8)).cached_tokens == 4


def test_a_block_stays_when_its_request_has_ended_until_room_is_needed() -> None:
    blocks = BlockPool(4, SIZE)
    blocks.free(opened(blocks, pieces(12)))
    assert blocks.used == 0
    assert blocks.count_cached(block_hashes(pieces(12), SIZE)) == 3
    opened(blocks, pieces(8, "b"))
    assert blocks.count_cached(block_hashes(pieces(12), SIZE)) == 2, "the end of the chain goes first"


def test_what_was_written_is_cached_too() -> None:
    blocks = BlockPool(100, SIZE)
    allocation = opened(blocks, pieces(6))
    whole = block_hashes(pieces(12), SIZE)
    blocks.free(allocation, whole[1:])
    assert opened(blocks, pieces(13)).cached_tokens == 12


def test_no_room_is_said() -> None:
    blocks = BlockPool(2, SIZE)
    allocation = opened(blocks, pieces(8))
    assert blocks.allocate([([], 1)], 1) is None
    assert not blocks.grow(allocation, 1)
    assert blocks.usage == 1


def test_a_salt_shares_nothing() -> None:
    assert block_hashes(pieces(8), SIZE, "one")[0] != block_hashes(pieces(8), SIZE, "two")[0]


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from("abc"), st.booleans()), max_size=40))
def test_the_books_balance(steps: list[tuple[int, str, bool]]) -> None:
    blocks = BlockPool(16, SIZE)
    allocations: list[BlockAllocation] = []
    for length, first, close in steps:
        prompt = pieces(length, first)
        allocation = blocks.allocate([(block_hashes(prompt, SIZE), length)], 1 if length % SIZE else 0)
        if allocation is not None:
            allocations.append(allocation)
        if close and allocations:
            blocks.free(allocations.pop(0))
        assert 0 <= blocks.used <= blocks.total
    for allocation in allocations:
        blocks.free(allocation)
    assert blocks.used == 0
