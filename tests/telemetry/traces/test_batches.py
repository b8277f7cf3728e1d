"""Batches are compressed once, and any number of them is one gzip member."""

import gzip
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.telemetry.traces.batches import TraceBatch, combined_crc, gzipped, pack

texts = st.lists(st.binary(max_size=300), min_size=1, max_size=20)


@given(first=st.binary(max_size=2000), second=st.binary(max_size=2000))
def test_the_check_value_of_two_parts_is_that_of_the_whole(first: bytes, second: bytes) -> None:
    assert combined_crc(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@settings(max_examples=50)
@given(head=st.binary(max_size=100), batches=st.lists(texts, max_size=4))
def test_a_head_and_batches_are_one_gzip_member(head: bytes, batches: list[list[bytes]]) -> None:
    body = gzipped(head, [pack(batch) for batch in batches])
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(body) == head + b"".join(b"".join(batch) for batch in batches)
    assert reader.eof
    assert reader.unused_data == b""


def test_large_batches_join_as_well() -> None:
    parts = [bytes([number]) * 3_000_000 for number in range(3)]
    assert gzip.decompress(gzipped(b"head", [pack([part]) for part in parts])) == b"head" + b"".join(parts)


@given(traces=texts)
def test_a_batch_comes_back_from_redis_as_it_was(traces: list[bytes]) -> None:
    batch = pack(traces)
    assert TraceBatch.read(batch.meta, batch.data) == batch
    assert batch.unpacked() == traces
