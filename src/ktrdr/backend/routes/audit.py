"""The audit record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from ktrdr.backend.routes.common import PROBLEMS, Services
from ktrdr.protocol.access import AuditList, AuditView

__all__ = ["router"]

router = APIRouter(tags=["access"], responses=PROBLEMS)


@router.get("/audit")
async def list_audit(
    services: Services,
    since: Annotated[
        datetime | None, Query(description="only what happened from then on; UTC unless it says")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=8192)] = None,
) -> AuditList:
    """Requests that changed something, newest first: who, from where, what, which id, outcome, when. Of several
    backends with one ``KTRDR_HOME`` all are listed by each."""
    moment = since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since
    page = await services.audit.page(moment, limit, cursor)
    entries = [
        AuditView(
            at=entry.at,
            who=entry.who,
            address=entry.address,
            what=entry.what,
            subject=entry.subject,
            outcome=entry.outcome,
            detail=entry.detail,
        )
        for entry in page.entries
    ]
    return AuditList(entries=entries, next_cursor=page.next_cursor)
