"""The search engine that stands in for Elasticsearch, under the name "handloom".

It implements Argilla's own `SearchEngine` contract (argilla_server.search_engine.base) with one
SQLite file a data set. Rows are read from Argilla's objects on the event loop, where they belong to
a session; SQLite works in a thread.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import numpy as np
from argilla_server.models import (
    Dataset,
    MetadataProperty,
    Record,
    Response,
    Suggestion,
    User,
    VectorSettings,
)
from argilla_server.search_engine import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from argilla_server.settings import settings

from annotate.embedded import database_rows, deletions, documents, leases, queues, search
from annotate.embedded.index import DatasetIndex
from annotate.embedded.index_file import delete_files, is_damage

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_off_loop = asyncio.to_thread


@SearchEngine.register("handloom")
class HandloomSearchEngine(SearchEngine):  # type: ignore[misc]
    """Argilla's searches, answered by SQLite."""

    _open: ClassVar[dict[Path, DatasetIndex]] = {}
    """Indexes stay open between requests: Argilla makes an engine for each."""
    mend: ClassVar[Callable[[UUID], Awaitable[None]] | None] = None
    """Makes a data set's index anew, once it is found damaged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    async def new_instance(cls) -> "HandloomSearchEngine":
        """An engine for one request, on the index folder of this server."""
        return cls(Path(settings.home_path) / "index")

    async def close(self) -> None:
        """Nothing to do after a request: the files stay open for the next one."""

    async def ping(self) -> bool:
        """Make sure that the index folder is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return True

    async def info(self) -> dict[str, Any]:
        """What `/api/v1/status` shows."""
        return {"engine": "handloom", "sqlite": sqlite3.sqlite_version}

    def index(self, dataset_id: UUID) -> DatasetIndex:
        """The open index of a data set.

        Raises:
            sqlite3.DatabaseError: there is none, or it is damaged.
        """
        path = self.path(dataset_id)
        if path not in self._open:
            self._open[path] = DatasetIndex(path)
        return self._open[path]

    @classmethod
    def opened(cls, dataset_id: UUID) -> list[DatasetIndex]:
        """The open indexes of a data set; there is one in each engine's folder at most."""
        return [index for path, index in cls._open.items() if path.stem == str(dataset_id)]

    def path(self, dataset_id: UUID) -> Path:
        """Where the index of a data set is, if there is one."""
        return self._folder / f"{dataset_id}.db"

    async def create_index(self, dataset: Dataset) -> None:
        """Make an empty index for a data set that is being published."""
        await self.delete_index(dataset)
        path = self.path(dataset.id)
        schema = documents.schema(dataset)
        self._open[path] = await _off_loop(DatasetIndex.create, path, *schema)

    async def delete_index(self, dataset: Dataset) -> None:
        """Remove a data set's index, if there is one."""
        leases.of_server().forget(dataset.id)
        path = self.path(dataset.id)
        if index := self._open.pop(path, None):
            index.close()
        delete_files(path)

    async def _on(self, at: UUID, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function with a data set's index, in a thread; again if it was damaged."""
        try:
            return await _off_loop(function, self.index(at), *arguments)
        except sqlite3.DatabaseError as error:
            mend = type(self).mend
            if mend is None or not is_damage(error):
                raise
            _LOG.warning("search index of data set %s is damaged: %s", at, error)
            await mend(at)
        return await _off_loop(function, self.index(at), *arguments)

    async def configure_metadata_property(
        self, dataset: Dataset, metadata_property: MetadataProperty
    ) -> None:
        """Index a property's values: those that records hold already, and from now on."""
        key = documents.metadata_key(metadata_property.name)
        kind = documents.metadata_kind(metadata_property.type.value)
        await self._on(dataset.id, DatasetIndex.declare, key, kind)
        db = metadata_property.current_async_session
        if db is None:
            raise ValueError(f"{metadata_property.name} belongs to no session")
        async for facets in database_rows.metadata(db, dataset.id, metadata_property.name):
            await self._on(dataset.id, DatasetIndex.put_facets, facets)

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None:
        """Nothing to prepare: vectors are kept by the settings' id."""

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Add records, or replace them with everything that belongs to them."""
        rows = [documents.record_row(record) for record in records]
        await self._on(dataset.id, DatasetIndex.put_records, rows)

    async def partial_record_update(self, record: Record, **update: Any) -> None:
        """Note a record's new status, the one thing Argilla updates alone."""
        at, updated_at = record.dataset_id, documents.microseconds(record.updated_at)
        status = str(update["status"].value)
        await self._on(at, DatasetIndex.set_status, record.id.bytes, status, updated_at)

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Forget records."""
        ids = [record.id.bytes for record in records]
        await self._on(dataset.id, DatasetIndex.delete_records, ids)

    async def update_record_response(self, response: Response) -> None:
        """Add a response or replace it."""
        at, row = response.record.dataset_id, documents.response_row(response)
        await self._on(at, DatasetIndex.put_response, response.record_id.bytes, row)
        queues.note_answer(leases.of_server(), response, response.status.value)

    async def delete_record_response(self, response: Response) -> None:
        """Forget a response."""
        at = response.record.dataset_id
        await self._on(at, DatasetIndex.delete_response, response.id.bytes)
        queues.note_answer(leases.of_server(), response, "deleted")

    async def update_record_suggestion(self, suggestion: Suggestion) -> None:
        """Add a suggestion or replace it."""
        facets = documents.suggestion_facets(suggestion)
        await self._on(
            suggestion.record.dataset_id,
            DatasetIndex.put_facets,
            {suggestion.record_id.bytes: facets},
        )

    async def delete_record_suggestion(self, suggestion: Suggestion) -> None:
        """Forget a suggestion."""
        emptied = dict.fromkeys(documents.suggestion_facets(suggestion))
        await self._on(
            suggestion.record.dataset_id,
            DatasetIndex.put_facets,
            {suggestion.record_id.bytes: emptied},
        )

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """Number of records, in all and by status; nothing for a draft data set."""
        if dataset.is_draft:
            return {}
        return _with_total(await self._on(dataset.id, search.progress))

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """Number of one person's responses, in all and by status; nothing for a draft."""
        if dataset.is_draft:
            return {}
        return _with_total(await self._on(dataset.id, search.user_progress, user.id.bytes))

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | str | None = None,
    ) -> SearchResponses:
        """A page of the records that match text and filter.

        In the order asked for; else the best match first; else in the order of pushing, or for
        `user_id` in that person's own stable shuffle.
        """
        request = search.Search(
            text=_text_query(query),
            filter=filter,
            sort=tuple(sort or ()),
            offset=offset,
            limit=limit,
            shuffled_for=UUID(str(user_id)).bytes if user_id else None,
        )
        queue = queues.queue_of(leases.of_server(), dataset, user_id, request)
        find = partial(queues.serve, queue) if queue else search.run
        hits, total = await self._on(dataset.id, find, request)
        return SearchResponses(items=_items(hits), total=total)

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: Any = "most_similar",
        threshold: float | None = None,
    ) -> SearchResponses:
        """The records nearest to a vector, or to a record's (which is left out), by cosine.

        Raises:
            ValueError: neither or both of vector and record are given, or the record has none.
        """
        if bool(value) == bool(record):
            raise ValueError(
                "Must provide either vector value or record to compute the similarity search"
            )
        vector = value or (record and record.vector_value_by_vector_settings(vector_settings))
        if not vector:
            raise ValueError("Cannot find a vector value to apply with provided info")
        nearest = search.Nearest(
            settings=str(vector_settings.id),
            vector=np.asarray(vector, dtype=np.float32),
            excluded=record.id.bytes if record else None,
            farthest=str(getattr(order, "value", order)) == "least_similar",
            limit=max_results,
            threshold=threshold,
        )
        among = search.Search(text=_text_query(query), filter=filter)
        hits = await self._on(dataset.id, search.nearest, nearest, among)
        return SearchResponses(items=_items(hits), total=len(hits))

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """The values of a metadata property: counts of terms, extremes of numbers."""
        at, key = metadata_property.dataset_id, documents.metadata_key(metadata_property.name)
        if metadata_property.is_terms:
            counts = await self._on(at, search.term_counts, key)
            values = [TermsMetrics.TermCount(term=term, count=count) for term, count in counts]
            return TermsMetrics(total=sum(count for _, count in counts), values=values)
        low, high = await self._on(at, search.extremes, key)
        if metadata_property.is_integer:
            return IntegerMetadataMetrics(min=low, max=high)
        return FloatMetadataMetrics(min=low, max=high)


def _indexes_to_tell(dataset_id: UUID) -> list[DatasetIndex]:
    """The open indexes of a data set, or else the server's own, if it has one."""
    opened = HandloomSearchEngine.opened(dataset_id)
    engine = HandloomSearchEngine(Path(settings.home_path) / "index")
    return opened or ([engine.index(dataset_id)] if engine.path(dataset_id).exists() else [])


deletions.listen(_indexes_to_tell, _off_loop)


def _text_query(query: TextQuery | str | None) -> search.Text | None:
    if query is None:
        return None
    return search.Text(query) if isinstance(query, str) else search.Text(query.q, query.field)


def _items(hits: list[search.Hit]) -> list[SearchResponseItem]:
    return [SearchResponseItem(record_id=UUID(bytes=hit.record), score=hit.score) for hit in hits]


def _with_total(counts: dict[str, int]) -> dict[str, int]:
    return {"total": sum(counts.values()), **counts}
