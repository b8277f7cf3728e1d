"""Ids are random and unique."""

import re

import pytest

from quarterdeck.ids import RequestIds, api_key, digest, object_id


def test_a_request_id_holds_a_trace_id() -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", RequestIds().next())


def test_no_two_are_equal_also_past_one_draw_of_randomness() -> None:
    one, other = RequestIds(), RequestIds()
    made = [ids.next() for _ in range(1000) for ids in (one, other)]
    assert len(set(made)) == len(made)


def test_an_objects_id_has_its_prefix() -> None:
    assert re.fullmatch(r"team_[0-9a-f]{24}", object_id("team"))
    assert object_id("team") != object_id("team")


def test_a_key_is_recognised_by_its_prefix() -> None:
    assert re.fullmatch(r"sk-qd-[\w-]{43}", api_key())
    assert api_key() != api_key()


@pytest.mark.parametrize("secret", ["abc", b"abc"])
def test_a_digest_is_sha_256(secret: str | bytes) -> None:
    assert digest(secret) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
