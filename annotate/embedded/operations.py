"""What the owner may ask of the embedded server beyond Argilla: routes under `/api/handloom`.

Argilla's own keys and roles decide who the owner is, and its error handlers answer.
"""

import secrets
from typing import Annotated, Any
from uuid import UUID

from argilla_server.api.errors.v1.exception_handlers import add_exception_handlers
from argilla_server.contexts.webhooks import list_webhooks
from argilla_server.database import AsyncSessionLocal
from argilla_server.errors import ForbiddenOperationError
from argilla_server.errors.error_handler import APIErrorHandler
from argilla_server.models import Dataset, User
from argilla_server.security import auth
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security
from sqlalchemy.exc import DBAPIError
from starlette.routing import Mount

from annotate.embedded.outbox import Drain, reason
from annotate.embedded.rebuild import Rebuilds
from annotate.embedded.webhooks import Delivery
from annotate.errors import HandloomError


def require_owner(user: Annotated[User, Security(auth.get_current_user)]) -> None:
    """Let nobody else through."""
    if not user.is_owner:
        raise ForbiddenOperationError


router = APIRouter(dependencies=[Depends(require_owner)])


def attach(app: FastAPI) -> None:
    """Answer these routes before Argilla's web page, which takes every path that is left.

    They find what the server holds in the application's own `state`.
    """
    operations = FastAPI(title="Handloom", docs_url=None, redoc_url=None, openapi_url=None)
    operations.state = app.state
    APIErrorHandler.configure_app(operations)
    add_exception_handlers(operations)
    operations.include_router(router)
    app.router.routes.insert(0, Mount("/api/handloom", operations))


@router.post("/flush")
async def flush(request: Request) -> dict[str, int]:
    """Write everything that is committed into the ledger now; how many versions that was."""
    drain: Drain | None = getattr(request.app.state, "drain", None)
    if drain is None:
        raise HTTPException(404, "this server keeps no ledger")
    try:
        return {"versions": await drain.drain()}
    except (HandloomError, DBAPIError, OSError) as error:
        raise HTTPException(507, f"the ledger cannot be written: {reason(error)}") from error


@router.get("/webhooks")
async def webhooks(request: Request) -> dict[str, Any]:
    """Of each webhook: its events waiting, dead (kept), delivered and given up (so far)."""
    counts = _delivery(request).deliveries.counts
    async with AsyncSessionLocal() as db:
        known = await list_webhooks(db)
    return {"items": [{"id": str(one.id)} | await counts(one.id) for one in known]}


@router.post("/webhooks/{webhook_id}/retry")
async def retry(request: Request, webhook_id: UUID) -> dict[str, int]:
    """Deliver after all what was given up; how many events that is."""
    delivery = _delivery(request)
    revived = await delivery.deliveries.revive(webhook_id)
    delivery.look()
    return {"events": revived}


@router.post("/users/{user_id}/key")
async def renew_key(
    user_id: UUID, owner: Annotated[User, Security(auth.get_current_user)]
) -> dict[str, str]:
    """Give somebody a new API key, which Argilla itself never does; the old one is refused."""
    if user_id == owner.id:
        raise HTTPException(409, "the key in use cannot be renewed with itself")
    async with AsyncSessionLocal() as db:
        user = await User.get_or_raise(db, user_id)
        await user.update(db, api_key=secrets.token_urlsafe(48))
        return {"api_key": user.api_key}


@router.post("/datasets/{dataset_id}/reindex", status_code=202)
async def reindex(request: Request, dataset_id: UUID) -> dict[str, Any]:
    """Begin to make a data set's search index anew; `state`, `records` done, `total`, `error`."""
    async with AsyncSessionLocal() as db:
        dataset = await Dataset.get_or_raise(db, dataset_id)
    if dataset.is_draft:
        raise HTTPException(409, "this data set is not published yet")
    return _rebuilds(request).start(dataset_id)


@router.get("/datasets/{dataset_id}/reindex")
async def reindexed(request: Request, dataset_id: UUID) -> dict[str, Any]:
    """How far that is."""
    state = _rebuilds(request).state(dataset_id)
    if state is None:
        raise HTTPException(404, "nobody asked for that since the server started")
    return state


def _rebuilds(request: Request) -> Rebuilds:
    rebuilds: Rebuilds = request.app.state.rebuilds
    return rebuilds


def _delivery(request: Request) -> Delivery:
    delivery: Delivery | None = getattr(request.app.state, "delivery", None)
    if delivery is None:
        raise HTTPException(404, "this server keeps no events")
    return delivery
