"""The webhook events that still have to be delivered, in Argilla's own database.

    handloom_deliveries       events, in order: waiting, or dead (given up, kept to look at)
    handloom_delivery_totals  by webhook: how many were delivered and given up so far

A webhook has at most `MOST_WAITING` events waiting and `MOST_DEAD` kept of those given up; what
comes on top is given up at once, and the oldest dead are forgotten. Totals go on counting.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

MOST_WAITING = 100_000
MOST_DEAD = 10_000

METADATA = sa.MetaData()
DELIVERIES = sa.Table(
    "handloom_deliveries",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("webhook_id", sa.Uuid, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("inserted_at", sa.DateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("state", sa.Text, nullable=False, default="waiting"),
    sa.Column("note", sa.Text, nullable=False, default=""),
    sa.Index("handloom_deliveries_next", "webhook_id", "state", "seq"),
    sqlite_autoincrement=True,  # a number is never used again
)
TOTALS = sa.Table(
    "handloom_delivery_totals",
    METADATA,
    sa.Column("webhook_id", sa.Uuid, primary_key=True),
    sa.Column("delivered", sa.BigInteger, nullable=False, default=0),
    sa.Column("given_up", sa.BigInteger, nullable=False, default=0),
)

_WAITING = DELIVERIES.c.state == "waiting"


class Deliveries:
    """The table of one database, of which this process is the only writer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: Counter[UUID] = Counter()

    async def prepare(self) -> None:
        """Make the tables where they are missing, and count what waits."""
        async with self._engine.begin() as db:
            await db.run_sync(METADATA.create_all)
        await self.recount()

    async def recount(self) -> None:
        """Count what waits. Jobs in threads of their own put events too, and may miscount."""
        counted = sa.select(DELIVERIES.c.webhook_id, sa.func.count()).where(_WAITING)
        async with self._engine.connect() as db:
            rows = (await db.execute(counted.group_by(DELIVERIES.c.webhook_id))).all()
        self._waiting = Counter({row[0]: row[1] for row in rows})

    async def put(self, db: AsyncSession, event: str, payload: str, webhooks: list[UUID]) -> None:
        """Have an event delivered to each of the webhooks; on disk when this returns."""
        common = {"event": event, "payload": payload, "inserted_at": datetime.utcnow()}
        full = {one for one in webhooks if self._waiting[one] >= MOST_WAITING}
        for webhook_id in webhooks:
            row = common | {"webhook_id": webhook_id}
            row["message_id"] = f"msg_{secrets.token_urlsafe(16)}"
            if webhook_id in full:
                row |= {"state": "dead", "note": "too many events waited"}
                await _count(await db.connection(), webhook_id, "given_up", 1)
            await db.execute(sa.insert(DELIVERIES), [row])
        await db.commit()
        self._waiting.update(set(webhooks) - full)

    def webhooks_with_waiting(self) -> list[UUID]:
        """Those to whom something has to be delivered."""
        return [webhook_id for webhook_id, count in self._waiting.items() if count > 0]

    async def next(self, webhook_id: UUID, limit: int = 100) -> Sequence[sa.Row[Any]]:
        """The events that a webhook gets next, oldest first."""
        asked = sa.select(DELIVERIES).where(DELIVERIES.c.webhook_id == webhook_id, _WAITING)
        async with self._engine.connect() as db:
            return (await db.execute(asked.order_by(DELIVERIES.c.seq).limit(limit))).all()

    async def delivered(self, row: sa.Row[Any]) -> None:
        """Forget an event that has arrived."""
        async with self._engine.begin() as db:
            await db.execute(sa.delete(DELIVERIES).where(DELIVERIES.c.seq == row.seq))
            await _count(db, row.webhook_id, "delivered", 1)
        self._waiting[row.webhook_id] -= 1

    async def failed(self, row: sa.Row[Any], note: str, *, refused: bool, keep: timedelta) -> int:
        """Note a try that failed, and give up what is too old or refused for good.

        Args:
            note: what went wrong.
            refused: give this very event up.
            keep: age from which on waiting events of the webhook are given up.

        Returns:
            How many events were given up.
        """
        own = DELIVERIES.c.webhook_id == row.webhook_id
        this = DELIVERIES.c.seq == row.seq
        old = DELIVERIES.c.inserted_at < datetime.utcnow() - keep
        async with self._engine.begin() as db:
            await db.execute(sa.update(DELIVERIES).where(this).values(tries=row.tries + 1))
            dying = sa.update(DELIVERIES).where(
                own, _WAITING, sa.or_(this, old) if refused else old
            )
            given_up = (await db.execute(dying.values(state="dead", note=note))).rowcount
            if given_up:
                await _count(db, row.webhook_id, "given_up", given_up)
                await _forget_oldest_dead(db, row.webhook_id)
        self._waiting[row.webhook_id] -= given_up
        return given_up

    async def drop(self, webhook_id: UUID) -> None:
        """Forget all of a webhook that is no more."""
        async with self._engine.begin() as db:
            for table in (DELIVERIES, TOTALS):
                await db.execute(sa.delete(table).where(table.c.webhook_id == webhook_id))
        del self._waiting[webhook_id]

    async def revive(self, webhook_id: UUID) -> int:
        """Have what was given up delivered after all; how many events."""
        dead = sa.and_(DELIVERIES.c.webhook_id == webhook_id, DELIVERIES.c.state == "dead")
        again = {"state": "waiting", "note": "", "tries": 0, "inserted_at": datetime.utcnow()}
        async with self._engine.begin() as db:
            revived = (await db.execute(sa.update(DELIVERIES).where(dead).values(again))).rowcount
        self._waiting[webhook_id] += revived
        return revived

    async def counts(self, webhook_id: UUID) -> dict[str, int]:
        """Events of a webhook: waiting, dead (kept), delivered and given_up (so far)."""
        async with self._engine.connect() as db:
            states = sa.select(DELIVERIES.c.state, sa.func.count()).group_by(DELIVERIES.c.state)
            rows = await db.execute(states.where(DELIVERIES.c.webhook_id == webhook_id))
            now = {row[0]: row[1] for row in rows}
            totals = sa.select(TOTALS).where(TOTALS.c.webhook_id == webhook_id)
            total = (await db.execute(totals)).one_or_none()
        return {
            "waiting": now.get("waiting", 0),
            "dead": now.get("dead", 0),
            "delivered": total.delivered if total else 0,
            "given_up": total.given_up if total else 0,
        }


async def _count(db: AsyncConnection, webhook_id: UUID, column: str, by: int) -> None:
    insert = (sqlite if db.dialect.name == "sqlite" else postgresql).insert(TOTALS)
    more = {column: TOTALS.c[column] + by}
    first = {"webhook_id": webhook_id, "delivered": 0, "given_up": 0, column: by}
    await db.execute(
        insert.values(first).on_conflict_do_update(index_elements=["webhook_id"], set_=more)
    )


async def _forget_oldest_dead(db: AsyncConnection, webhook_id: UUID) -> None:
    dead = sa.and_(DELIVERIES.c.webhook_id == webhook_id, DELIVERIES.c.state == "dead")
    newest = sa.select(DELIVERIES.c.seq).where(dead).order_by(DELIVERIES.c.seq.desc())
    first_kept = newest.offset(MOST_DEAD - 1).limit(1).scalar_subquery()
    await db.execute(sa.delete(DELIVERIES).where(dead, DELIVERIES.c.seq < first_kept))
