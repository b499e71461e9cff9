"""Deletions of which Argilla does not tell its search engine: of users, properties and vectors.

With a user the database deletes their responses; with a metadata property or vector settings, their
values. Here SQLAlchemy tells: before such a row goes we note which data sets it concerns, and once
that is committed their indexes are told.
"""

import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from uuid import UUID

from argilla_server.models import MetadataProperty, Record, Response, User, VectorSettings
from sqlalchemy import Connection, event, select
from sqlalchemy.orm import Session, object_session
from sqlalchemy.util.concurrency import await_only, in_greenlet

from annotate.embedded.documents import metadata_key
from annotate.embedded.index import DatasetIndex

Deletion = tuple[UUID, Callable[[DatasetIndex], None]]
Indexes = Callable[[UUID], Iterable[DatasetIndex]]
"""The indexes of a data set that are to be told.

Raises:
    sqlite3.DatabaseError: there is none that can be used.
"""

_NOTED = "handloom_deletions"

_LOG = logging.getLogger(__name__)


def listen(indexes: Indexes, off_loop: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Tell these indexes from now on, in a thread where Argilla's session is asynchronous."""

    def committed(session: Session) -> None:
        for dataset, delete in session.info.pop(_NOTED, ()):
            try:
                told = list(indexes(dataset))
            except sqlite3.DatabaseError as error:
                _LOG.warning("index of data set %s: %s", dataset, error)
                continue
            for index in told:
                if in_greenlet():
                    await_only(off_loop(delete, index))
                else:
                    delete(index)

    def rolled_back(session: Session) -> None:
        session.info.pop(_NOTED, None)

    event.listen(Session, "after_commit", committed)
    event.listen(Session, "after_rollback", rolled_back)
    event.listen(User, "before_delete", _user)
    event.listen(MetadataProperty, "before_delete", _metadata_property)
    event.listen(VectorSettings, "before_delete", _vector_settings)


def _user(_: object, connection: Connection, user: User) -> None:
    answered = (
        select(Record.dataset_id).distinct().join(Response).where(Response.user_id == user.id)
    )
    gone = user.id.bytes
    _note(
        user,
        *(
            (dataset, lambda index: index.delete_user(gone))
            for (dataset,) in connection.execute(answered).all()
        ),
    )


def _metadata_property(_: object, connection: Connection, gone: MetadataProperty) -> None:
    key = metadata_key(gone.name)
    _note(gone, (gone.dataset_id, lambda index: index.drop_key(key)))


def _vector_settings(_: object, connection: Connection, gone: VectorSettings) -> None:
    settings = str(gone.id)
    _note(gone, (gone.dataset_id, lambda index: index.drop_vectors(settings)))


def _note(row: object, *deletions: Deletion) -> None:
    if (session := object_session(row)) is not None:
        session.info.setdefault(_NOTED, []).extend(deletions)
