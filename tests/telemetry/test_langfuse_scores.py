"""Scores reach Langfuse, and an error says whether a repetition can help."""

import pytest
from tests.telemetry.langfuse_score_server import ScoreServer

from quarterdeck.telemetry.langfuse_scores import LangfuseScores, ScoreRefusedError, ScoreSinkError

SCORE = {"id": "score_1", "traceId": "0" * 32, "name": "feedback", "value": 1, "dataType": "BOOLEAN"}


def test_a_score_is_created_replaced_and_deleted() -> None:
    with ScoreServer() as server:
        subject = LangfuseScores(server.url + "/", "pk-lf-1", "sk-lf-2")
        subject.put(SCORE)
        subject.put({**SCORE, "value": 0})
        assert server.scores == {"score_1": {**SCORE, "value": 0}}
        subject.delete("score_1")
        subject.delete("score_1")  # it is gone already
        assert server.scores == {}


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_what_may_pass_is_to_be_repeated(status: int) -> None:
    with ScoreServer() as server:
        server.status = status
        with pytest.raises(ScoreSinkError, match=str(status)):
            LangfuseScores(server.url, "pk-lf-1", "sk-lf-2").put(SCORE)


def test_a_redirect_is_not_followed_and_no_score_counts_as_sent() -> None:
    with ScoreServer() as elsewhere, ScoreServer() as server:
        server.location = elsewhere.url + "/api/public/scores"
        for status in (301, 302, 303, 307, 308):
            server.status = status
            with pytest.raises(ScoreSinkError, match=f"HTTP {status}: the server is at another URL: {elsewhere.url}"):
                LangfuseScores(server.url, "pk-lf-1", "sk-lf-2").put(SCORE)
        assert (elsewhere.calls, elsewhere.scores) == ([], {})


def test_what_is_invalid_is_refused() -> None:
    with ScoreServer() as server, pytest.raises(ScoreRefusedError, match="400"):
        LangfuseScores(server.url, "pk-lf-1", "sk-lf-2").put({"id": "score_1"})


def test_a_server_that_is_away_is_to_be_tried_again_and_no_key_is_in_the_error() -> None:
    with pytest.raises(ScoreSinkError) as caught:
        LangfuseScores("http://127.0.0.1:1", "pk-lf-1", "sk-lf-2").put(SCORE)
    assert "sk-lf-2" not in str(caught.value)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        LangfuseScores("file:///etc/passwd", "a", "b")
