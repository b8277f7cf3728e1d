"""How long a server says that it should be left alone, wherever it says so."""

from email.utils import formatdate

import pytest

from quarterdeck.protocol.retry_delays import MAX_SECONDS, delay_of_body, delay_of_headers, header_value, seconds_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("1h", 3600.0),
        (formatdate(NOW + 40, usegmt=True), 40.0),
        (formatdate(NOW - 40, usegmt=True), None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-1", None),
        ("1x", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_a_duration_or_a_date(retry_after: str, seconds: float | None) -> None:
    assert seconds_of(retry_after, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "6100", "retry-after": "9"}, 6.1),
        ({"x-ms-retry-after-ms": "25500"}, 25.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"x-ratelimit-reset-tokens": "1m12s", "x-ratelimit-reset-requests": "2s"}, 2.0),
        (
            {
                "x-ratelimit-reset-tokens": "1m12s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-requests": "7",
            },
            72.0,
        ),
        ({"x-rate-limit-reset-tokens": "55"}, 55.0),
        ({"x-ratelimit-reset": str(int(NOW + 45))}, 45.0),
        ({"x-ratelimit-reset": str(int(NOW + 45) * 1000)}, 45.0),
        ({"x-ratelimit-reset": str(int(NOW - 45))}, None),
        ({"x-ratelimit-reset": "later"}, None),
        ({}, None),
    ],
)
def test_other_headers_of_a_rate_limit_say_it_too(headers: dict[str, str], seconds: float | None) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    assert delay_of_headers(encoded.get, NOW, is_limit=True) == seconds


def test_a_limit_that_is_not_reached_says_nothing() -> None:
    assert delay_of_headers({b"x-ratelimit-reset-tokens": b"60"}.get, NOW) is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 7.66s.", 7.66),
        ("Please try again in 1m30s.", 90.0),
        ("Please try again in 20ms.", 0.02),
        ("Please retry after 26 seconds.", 26.0),
        ("Rate limit is exceeded. Try again in 50 seconds.", 50.0),
        ("Please retry after 26", None),
        ("Please try again later.", None),
        ("try again in 5 minutes", None),
    ],
)
def test_the_message_may_say_it(message: str, seconds: float | None) -> None:
    assert delay_of_body(b"{}", message) == seconds


def test_the_delay_that_gemini_asks_for_is_in_its_details() -> None:
    assert delay_of_body(b'[{"error":{"details":[{"retryDelay": "36.2s"}]}}]', "") == 36.2


@pytest.mark.parametrize(("seconds", "value"), [(None, None), (0.0, 1), (0.2, 1), (6.1, 7), (1e12, MAX_SECONDS)])
def test_a_caller_is_told_whole_seconds_within_bounds(seconds: float | None, value: int | None) -> None:
    assert header_value(seconds) == value
