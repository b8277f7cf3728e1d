"""`/v1/feedback`: scores of a team's requests, by its keys. `/admin/scores`: those of the whole organisation.

A key scores its own team's requests only; another team's request does not exist for it. A score may come before its
request is in the ledger, and then counts once it is.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import AdminDep, MemberDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.scores.requests import FeedbackRequest, score_object, score_of
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.scores import ScoreFilter, Source

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]
Text = Annotated[str | None, Query(max_length=512)]
Unix = Annotated[float | None, Query(ge=0, le=10**11)]


@router.post("/v1/feedback")
async def create_feedback(body: FeedbackRequest, parts: PartsDep, member: MemberDep) -> Response:
    """Score a request of the key's team: `thumbs`, a `value` or a `category`, a `comment`. The same request, name and
    user again replaces the score (200 instead of 201)."""
    score, is_new = await parts.scores.put(score_of(body, member, "feedback", parts.redactor.current))
    return json_response(score_object(score), 201 if is_new else 200)


@router.get("/v1/feedback")
async def list_feedback(
    parts: PartsDep,
    member: MemberDep,
    limit: Limit = 20,
    after: Text = None,
    request_id: Text = None,
    name: Text = None,
    user: Text = None,
) -> Response:
    """List the scores of the key's team, newest first."""
    where = ScoreFilter(org=member.org, team=member.team, request=request_id, name=name, user=user)
    rows = await parts.scores.list(where, limit=limit + 1, after=after)
    return json_response(page([score_object(row) for row in rows], limit))


@router.delete("/v1/feedback/{score_id}")
async def delete_feedback(score_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete a score of the key's team, here and at the trace backend."""
    return _deleted((await parts.scores.delete(score_id, org=member.org, team=member.team)).id)


@router.post("/admin/scores")
async def create_score(body: FeedbackRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Score any request of the organisation, such as by an evaluation."""
    score, is_new = await parts.scores.put(score_of(body, admin, "api", parts.redactor.current), is_admin=True)
    return json_response(score_object(score), 201 if is_new else 200)


@router.get("/admin/scores")
async def list_scores(
    parts: PartsDep,
    admin: AdminDep,
    limit: Limit = 20,
    after: Text = None,
    request_id: Text = None,
    team: Text = None,
    name: Text = None,
    user: Text = None,
    source: Source | None = None,
    start: Unix = None,
    end: Unix = None,
) -> Response:
    """List the organisation's scores, newest first. `start` and `end` are Unix seconds."""
    where = ScoreFilter(
        org=admin.org, team=team, request=request_id, name=name, user=user, source=source, since=start, until=end
    )
    rows = await parts.scores.list(where, limit=limit + 1, after=after)
    return json_response(page([score_object(row) for row in rows], limit))


@router.delete("/admin/scores/{score_id}")
async def delete_score(score_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Delete a score of the organisation, here and at the trace backend."""
    return _deleted((await parts.scores.delete(score_id, org=admin.org)).id)


def _deleted(score_id: str) -> Response:
    body: dict[str, Any] = {"id": score_id, "object": "score", "deleted": True}
    return json_response(body)
