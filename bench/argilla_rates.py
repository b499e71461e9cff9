"""Records a second in and out: our client and patched server against the SDK and Argilla as it is.

Both write the same records and read the same records, with everything; what each server holds
afterwards, and what each client gives, is compared before a time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import argilla as rg
import numpy as np

from annotate.server import Server
from annotate.server_types import Record
from bench import argilla_content as content
from bench.argilla_server import WORKSPACE, Running, make_dataset

Canonical = dict[str, dict[str, Any]]


def measure(
    stock: Running, patched: Running, n: int, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Push and pull `n` records both ways, in turn, `repeats` times; medians and ratios."""
    made = content.records(n)
    truth = canonical(made)
    times: dict[str, list[float]] = {
        name: [] for name in ("sdk_push", "our_push", "sdk_pull", "our_pull")
    }
    for repeat in range(repeats):
        name = f"rates-{repeat}"
        for ours in (False, True) if repeat % 2 else (True, False):
            one = _ours if ours else _sdk
            pushed, pulled = one(patched if ours else stock, name, made, truth)
            who = "our" if ours else "sdk"
            times[f"{who}_push"].append(pushed)
            times[f"{who}_pull"].append(pulled)
            say(f"{who}: {n / pushed:,.0f} records/s in, {n / pulled:,.0f} out")
    return {
        **{f"{name}_per_s": n / float(np.median(taken)) for name, taken in times.items()},
        "push_ratio": ratio(times["sdk_push"], times["our_push"]),
        "pull_ratio": ratio(times["sdk_pull"], times["our_pull"]),
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, Any]:
    """How many times faster, from pairs: median, and Student's 95 % interval of the mean log."""
    from scipy.stats import t

    logs = np.log(np.asarray(slow) / np.asarray(fast))
    found: dict[str, Any] = {"median": float(np.exp(np.median(logs))), "ci95": None}
    if len(logs) > 1:
        half = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        found["ci95"] = [float(np.exp(logs.mean() + sign * half)) for sign in (-1, 1)]
    return found


def _ours(server: Running, name: str, made: list[Record], truth: Canonical) -> tuple[float, float]:
    make_dataset(server, name)
    with server.ours() as client:
        batch = client.batch(name)
        began = time.perf_counter()
        client.publish(batch, made)
        pushed = time.perf_counter() - began
        began = time.perf_counter()
        pulled = list(client.records(batch))
        taken = time.perf_counter() - began
        assert canonical(pulled) == truth, "our pull differs from what was pushed"
        assert held(client, name) == truth, "our push differs from what was given"
    return pushed, taken


def _sdk(server: Running, name: str, made: list[Record], truth: Canonical) -> tuple[float, float]:
    dataset = make_dataset(server, name)
    people = {user.username: user.id for user in server.sdk().users}
    records = [sdk_record(record, people) for record in made]
    began = time.perf_counter()
    dataset.records.log(records)
    pushed = time.perf_counter() - began
    began = time.perf_counter()
    pulled = list(dataset.records(with_responses=True, with_suggestions=True, with_vectors=True))
    taken = time.perf_counter() - began
    names = {str(id): person for person, id in people.items()}
    assert {r.id: sdk_canonical(r, names) for r in pulled} == truth, "the SDK's pull differs"
    with server.ours() as client:
        assert held(client, name) == truth, "the SDK's push differs from what was given"
    return pushed, taken


def sdk_record(record: Record, people: Mapping[str, Any]) -> rg.Record:
    """The same record for the SDK."""
    return rg.Record(
        id=record.item_id,
        fields=dict(record.fields),
        metadata=dict(record.metadata),
        vectors=dict(record.vectors),
        suggestions=[
            rg.Suggestion(question, one.value, score=one.score, agent=one.agent)
            for question, one in record.suggestions.items()
        ],
        responses=[
            rg.Response(question, value["value"], people[one.annotator], status=one.status)
            for one in record.responses
            for question, value in one.values.items()
        ],
    )


def canonical(records: Iterable[Record]) -> Canonical:
    """Everything of each record that was written, by item id."""
    return {
        record.item_id: {
            "fields": dict(record.fields),
            "metadata": dict(record.metadata),
            "vectors": dict(record.vectors),
            "suggestions": {
                question: (one.value, one.score, one.agent)
                for question, one in record.suggestions.items()
            },
            "responses": {
                (one.annotator, one.status, question): value["value"]
                for one in record.responses
                for question, value in one.values.items()
            },
        }
        for record in records
    }


def sdk_canonical(record: rg.Record, people: Mapping[str, str]) -> dict[str, Any]:
    """The same of a record that the SDK has read."""
    return {
        "fields": dict(record.fields),
        "metadata": dict(record.metadata),
        "vectors": dict(record.vectors),
        "suggestions": {
            one.question_name: (one.value, one.score, one.agent) for one in record.suggestions
        },
        "responses": {
            (people[str(one.user_id)], one.status.value, one.question_name): one.value
            for one in record.responses
        },
    }


def held(client: Server, name: str) -> Canonical:
    """What the server holds, read by plain REST."""
    batch = client.batch(name)
    questions = client.request("GET", f"datasets/{batch.id}/questions")["items"]
    names = {item["id"]: item["name"] for item in questions}
    people = {item["id"]: item["username"] for item in client.request("GET", "users")["items"]}
    found: Canonical = {}
    total = 1
    while len(found) < total:
        page = client.request(
            "GET",
            f"datasets/{batch.id}/records",
            offset=len(found),
            limit=500,
            include=["responses", "suggestions", "vectors"],
        )
        total = page["total"]
        for item in page["items"]:
            found[item["external_id"]] = {
                "fields": item["fields"],
                "metadata": item["metadata"],
                "vectors": item["vectors"],
                "suggestions": {
                    names[one["question_id"]]: (one["value"], one["score"], one["agent"])
                    for one in item["suggestions"]
                },
                "responses": {
                    (people[one["user_id"]], one["status"], question): value["value"]
                    for one in item["responses"]
                    for question, value in one["values"].items()
                },
            }
        assert page["items"], f"{WORKSPACE}/{name} lists fewer records than it counts"
    return found
