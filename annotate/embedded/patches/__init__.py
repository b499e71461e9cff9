"""What makes Argilla 2.8.0 slow, mended in place: small patches, each with a name and a reason.

Each gives what the original gives; its test shows that, and that the original is still slow. With
any other version of Argilla nothing is touched.

settings    parsed once, not at every look
webhooks    looked up once an operation, events made only if wanted
bulk        records in bulk without a query, an object and a comparison too many a record
answers     the answer to a bulk made into JSON once, not by way of objects of objects
listing     pages of records from the database's JSON as it stands
membership  of a workspace, looked up once for a page of the queue
status      a changed overlap in a few statements, not one transaction a response
one_hop     one wait for the database's thread a statement, not four
planning    SQLite told which index narrows (with listing's index, what `prepare` does)
"""

import logging

from argilla_server._version import __version__ as argilla_version
from sqlalchemy.ext.asyncio import AsyncEngine

from annotate.embedded.patches import (
    answers,
    bulk,
    listing,
    membership,
    one_hop,
    planning,
    settings,
    status,
    webhooks,
)
from annotate.embedded.patches.replacement import Patch

PATCHED_VERSION = "2.8.0"

PATCHES: dict[str, Patch] = {
    "settings": settings.PATCH,
    "webhooks": webhooks.PATCH,
    "bulk": bulk.PATCH,
    "answers": answers.PATCH,
    "listing": listing.PATCH,
    "membership": membership.PATCH,
    "status": status.PATCH,
    "one_hop": one_hop.PATCH,
}

_LOG = logging.getLogger(__name__)


def apply(version: str = argilla_version) -> bool:
    """Patch Argilla, once, before it serves; False if this is not the version that was measured."""
    if version != PATCHED_VERSION:
        _LOG.warning("Argilla is %s, not %s: left as it is, and slower", version, PATCHED_VERSION)
        return False
    for patch in PATCHES.values():
        patch.apply()
    return True


async def prepare(engine: AsyncEngine) -> None:
    """What the patches that are applied want of Argilla's database."""
    if PATCHES["listing"].applied:
        await listing.prepare(engine)
    if any(patch.applied for patch in PATCHES.values()):
        await planning.prepare(engine)


def undo() -> None:
    """Put everything back as it came."""
    for patch in reversed(PATCHES.values()):
        patch.undo()
