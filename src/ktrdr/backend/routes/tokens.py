"""Tokens: make, list, revoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from ktrdr.backend.access.principal import principal_of
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.operations.tokens import TokenRecord
from ktrdr.protocol.access import CreateToken, TokenCreated, TokenList, TokenView

__all__ = ["router"]

router = APIRouter(tags=["access"], responses=PROBLEMS)
Name = Annotated[str, Path(max_length=64)]


def _view(token: TokenRecord) -> TokenView:
    return TokenView(
        name=token.name,
        token_id=token.token_id,
        scopes=list(token.scopes),
        created_at=token.created_at,
        created_by=token.created_by,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )


@router.get("/tokens", response_model=TokenList)
async def list_tokens(request: Request, services: Services) -> Response:
    """All tokens of the ledger, by name, without what opens the door. ``last_used_at`` is exact to an hour."""
    found = [_view(token) for token in await services.tokens.list()]
    return json_answer(TokenList(tokens=found, total=len(found)), request)


@router.post("/tokens", response_model=TokenCreated, status_code=201)
async def create_token(body: CreateToken, request: Request, services: Services) -> Response:
    """Make a token. Its text is in this answer and nowhere else: the ledger keeps a hash."""
    by = principal_of(request.scope).name
    record, text = await services.tokens.create(body.name, body.scopes, body.expires_in_s, by)
    answer = TokenCreated(**_view(record).model_dump(), token=text)
    headers = {"Location": f"/api/v1/tokens/{record.name}", "Cache-Control": "no-store"}
    return json_answer(answer, request, status=201, headers=headers)


@router.delete("/tokens/{name}", status_code=204)
async def revoke_token(name: Name, services: Services) -> None:
    """Make a token worthless: here at once, at other backends of the ledger within two seconds. Workers that registered
    with it are forgotten, and what they ran is done again elsewhere: at once if this backend leads, else within a round of
    probes."""
    await services.tokens.revoke(name)
    if services.leads:
        services.health.dismiss_soon()
