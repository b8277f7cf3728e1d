"""A state is reported when it changes."""

from quarterdeck.net.redis_state import ReportedState


def test_the_first_connection_is_no_news_and_the_first_failure_is() -> None:
    for first, reported in ((True, []), (False, [False])):
        changes: list[bool] = []
        state = ReportedState(changes.append)
        state.set(up=first)
        state.set(up=first)
        assert changes == reported


def test_each_change_is_reported_once() -> None:
    changes: list[bool] = []
    state = ReportedState(changes.append)
    for up in (True, False, False, True, True, False):
        state.set(up=up)
    assert changes == [False, True, False]
