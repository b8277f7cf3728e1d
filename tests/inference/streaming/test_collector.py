"""Streams are collected up to a bound."""

from quarterdeck.inference.streaming.collector import Collector


def test_pieces_are_collected_until_they_are_too_many() -> None:
    told: list[bool] = []
    subject = Collector(6, on_full=lambda: told.append(True))
    subject.add(b"abc")
    subject.add(b"def")
    assert subject.body() == b"abcdef" and told == []
    subject.add(b"g")
    subject.add(b"h")
    assert subject.body() is None and told == [True]
