"""How long an annotator waits: each thing the web page asks for, over HTTP, its answer checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from bench import argilla_content as content
from bench.argilla_server import Running

PAGE = 10
Check = Callable[[Any], None]


@dataclass(frozen=True)
class Request:
    """Something asked, and what is wrong with an answer to it: an assertion."""

    method: str
    path: str
    check: Check
    body: dict[str, Any] | None = None


def measure(server: Running, dataset_id: str, n: int, repeats: int) -> dict[str, dict[str, float]]:
    """p50 and p95 in milliseconds of each operation, as anna, `repeats` times in turn."""
    owner = server.http(server.key)
    users = owner.get("users").json()["items"]
    key = next(user["api_key"] for user in users if user["username"] == content.PEOPLE[0])
    requests = dict(_requests(owner, dataset_id, n))
    taken: dict[str, list[float]] = {name: [] for name in requests}
    with server.http(key) as browser:
        for turn in range(-1, repeats):  # the first is to warm up
            for name, request in requests.items():
                milliseconds = _ask(browser, request)
                if turn >= 0:
                    taken[name].append(milliseconds)
    taken["text"] = taken["text_rare"] + taken["text_middle"] + taken["text_frequent"]
    owner.close()
    return {
        f"p{q}_ms": {name: round(float(np.percentile(ms, q)), 2) for name, ms in taken.items()}
        for q in (50, 95)
    }


def _ask(browser: httpx.Client, request: Request) -> float:
    began = time.perf_counter()
    answer = browser.request(
        request.method,
        request.path,
        json=request.body,
        params={"include": ["responses", "suggestions"], "offset": 0, "limit": PAGE}
        if request.body is not None
        else None,
    )
    content_of = answer.raise_for_status().json()
    taken = 1000 * (time.perf_counter() - began)
    request.check(content_of)
    return taken


def _requests(owner: httpx.Client, dataset_id: str, n: int) -> Iterator[tuple[str, Request]]:
    """What is measured, by name."""
    numbers = np.arange(n)
    pending = np.array([content.is_pending(number) for number in range(n)])
    metadata = [content.metadata(number) for number in range(n)]
    path = f"me/datasets/{dataset_id}/records/search"

    def page(check: Check, *filters: dict[str, Any], **more: Any) -> Request:
        body = {"query": more.pop("query", {}), "filters": {"and": [*_PENDING, *filters]}, **more}
        return Request("POST", path, check, body)

    yield "next_page", page(_counts(int(pending.sum())))
    for word in content.words(n):
        found = int((pending & (numbers % word.every == 0)).sum())
        yield word.name, page(_counts(found), query={"text": {"q": word.text}})
    of_source = np.array([one["source"] == "book" for one in metadata])
    terms = {"type": "terms", "scope": _of_metadata("source"), "values": ["book"]}
    yield "metadata_terms", page(_counts(int((pending & of_source).sum())), terms)
    lengths = np.array([one["length"] for one in metadata])
    within = pending & (lengths >= 100) & (lengths <= 199)
    between = {"type": "range", "scope": _of_metadata("length"), "ge": 100, "le": 199}
    yield "metadata_range", page(_counts(int(within.sum())), between)
    scores = np.array([one["score"] for one in metadata], dtype=np.float32)
    lowest = np.sort(scores[pending])[:PAGE].tolist()
    order = [{"scope": _of_metadata("score"), "order": "asc"}]
    yield "sort_metadata", page(_sorted(lowest, int(pending.sum())), sort=order)
    yield "similarity", _similarity(owner, dataset_id, pending, page)
    done = int(sum(len(content.answerers(number)) >= content.OVERLAP for number in range(0, n, 10)))
    yield "progress", Request("GET", f"datasets/{dataset_id}/progress", _progress(n, done))
    mine = {"total": n, "submitted": n - int(pending.sum()), "pending": int(pending.sum())}
    yield "my_progress", Request("GET", f"me/datasets/{dataset_id}/metrics", _responses(mine))


_PENDING = [
    {
        "type": "terms",
        "scope": {"entity": entity, "property": "status"},
        "values": ["pending"],
    }
    for entity in ("response", "record")
]
"""What the web page asks for with every page of the queue."""


def _of_metadata(name: str) -> dict[str, str]:
    return {"entity": "metadata", "metadata_property": name}


def _counts(total: int) -> Check:
    def check(answer: Any) -> None:
        assert answer["total"] == total, f"{answer['total']} found, {total} expected"
        assert len(answer["items"]) == min(PAGE, total)

    return check


def _sorted(lowest: list[float], total: int) -> Check:
    def check(answer: Any) -> None:
        _counts(total)(answer)
        found = [item["record"]["metadata"]["score"] for item in answer["items"]]
        assert np.allclose(found, lowest, atol=1e-6), f"{found} is not {lowest}"

    return check


def _similarity(
    owner: httpx.Client, dataset_id: str, pending: np.ndarray, page: Callable[..., Request]
) -> Request:
    """The nearest to record 3, found by comparing it with every other."""
    own = f"datasets/{dataset_id}"
    listed = owner.get(f"{own}/records", params={"offset": 3, "limit": 1}).json()["items"][0]
    assert listed["external_id"] == content.item_id(3)
    like = content.vectors(0)[3]
    chunks = -(-len(pending) // content.CHUNK)
    near = np.concatenate([content.vectors(chunk) @ like for chunk in range(chunks)])
    near = np.where(pending, near[: len(pending)], -np.inf)
    near[3] = -np.inf
    nearest = [content.item_id(number) for number in np.argsort(-near)[:PAGE].tolist()]

    def check(answer: Any) -> None:
        found = [item["record"]["external_id"] for item in answer["items"]]
        assert found == nearest, f"{found} is not {nearest}"

    vector = {
        "name": "embedding",
        "record_id": listed["id"],
        "max_results": PAGE,
        "order": "most_similar",
    }
    return page(check, query={"vector": vector})


def _progress(total: int, completed: int) -> Check:
    def check(answer: Any) -> None:
        found = (answer["total"], answer["completed"], answer["pending"])
        assert found == (total, completed, total - completed), found

    return check


def _responses(expected: dict[str, int]) -> Check:
    def check(answer: Any) -> None:
        found = {name: answer["responses"][name] for name in expected}
        assert found == expected, f"{found} is not {expected}"

    return check
