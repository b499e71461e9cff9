"""A record as Argilla writes it, and back: names where Argilla has ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from annotate.errors import InputError
from annotate.server_types import Record, Response, Suggestion

Request = Callable[..., Any]
"""`Server.request`."""


class RecordJson:
    """The names of one data set's questions and of a server's users, looked up when needed."""

    def __init__(self, request: Request, dataset_id: str) -> None:
        self._request, self._dataset_id = request, dataset_id

    @cached_property
    def _questions(self) -> dict[str, str]:
        items = self._request("GET", f"datasets/{self._dataset_id}/questions")["items"]
        return {item["name"]: item["id"] for item in items}

    @cached_property
    def _users(self) -> dict[str, str]:
        items = self._request("GET", "users")["items"]
        return {item["username"]: item["id"] for item in items}

    @cached_property
    def _question_names(self) -> dict[str, str]:
        return {id: name for name, id in self._questions.items()}

    @cached_property
    def _user_names(self) -> dict[str, str]:
        return {id: name for name, id in self._users.items()}

    def bulk(self, records: Iterable[Record]) -> bytes:
        """The content of a bulk request.

        Raises:
            InputError: a question or a user is not on the server.
        """
        return to_json({"items": [self._item(record) for record in records]})

    def _item(self, record: Record) -> dict[str, Any]:
        item: dict[str, Any] = {
            "external_id": record.item_id,
            "fields": record.fields,
            "metadata": record.metadata,
        }
        if record.vectors:
            item["vectors"] = record.vectors
        if record.suggestions:
            item["suggestions"] = [
                {
                    "question_id": _id(self._questions, question, "question"),
                    "value": suggestion.value,
                    "score": suggestion.score,
                    "agent": suggestion.agent,
                }
                for question, suggestion in record.suggestions.items()
            ]
        if record.responses:
            item["responses"] = [
                {
                    "user_id": _id(self._users, response.annotator, "user"),
                    "status": response.status,
                    "values": response.values,
                }
                for response in record.responses
            ]
        return item

    def record(self, answer: Mapping[str, Any]) -> Record:
        """From Argilla's JSON; without the responses of users it does not list any more."""
        item_id = answer["external_id"]
        return Record(
            item_id=item_id,
            fields=answer["fields"],
            metadata=answer["metadata"] or {},
            suggestions={
                self._question_names[one["question_id"]]: Suggestion(
                    one["value"], one["score"], one["agent"]
                )
                for one in answer.get("suggestions") or ()
            },
            vectors=answer.get("vectors") or {},
            responses=tuple(
                Response.read(item_id, self._user_names[one["user_id"]], one)
                for one in answer.get("responses") or ()
                if one["user_id"] in self._user_names
            ),
        )


def _id(ids: Mapping[str, str], name: str, what: str) -> str:
    if name not in ids:
        raise InputError(f"there is no {what} {name} on the server")
    return ids[name]
