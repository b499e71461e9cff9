"""A person's own queue on the real server: fifteen at once, paging, reloads, owners."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import RunningArgilla
from page_client import PageClient, Team

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def team(argilla_server: RunningArgilla) -> Team:
    return Team(argilla_server, people=15)


@pytest.mark.parametrize(
    "overlap", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_many_at_once_submit_no_more_than_is_needed(team: Team, overlap: int) -> None:
    records = 120
    dataset = team.dataset(records, overlap)
    paces = random.Random(overlap)
    pages = [team.page(dataset, person) for person in range(15)]
    with ThreadPoolExecutor(15) as people:
        done = sum(people.map(lambda page: page.work(paces.uniform(0, 0.05)), pages))
    counts = team.submissions(dataset)
    assert sum(counts.values()) == done
    assert sum(page.repeated for page in pages) == 0
    over = sum(max(0, count - overlap) for count in counts.values())
    assert over <= 0.01 * records * overlap
    assert all(count >= overlap for count in counts.values())
    print(f"overlap {overlap}: {done} submissions, {over} too many")


def test_one_person_pages_through_everything_once(team: Team) -> None:
    dataset = team.dataset(45)
    page = team.page(dataset, 0)
    page.load()
    assert (len(page.store), page.total) == (10, 45)
    assert page.work() == 45
    assert page.repeated == 0


def test_a_reload_shows_the_same_records_again(team: Team) -> None:
    dataset = team.dataset(40)
    page = team.page(dataset, 0)
    first = list(page.load())
    page.answer(first[0])
    assert page.load()[:9] == first[1:]


def test_others_are_served_other_records_and_the_count_is_of_what_is_there_for_one(
    team: Team,
) -> None:
    dataset = team.dataset(16)
    ada, ben = team.page(dataset, 0), team.page(dataset, 1)
    assert len(ada.load()) == 8
    assert ada.total == 16
    assert not set(ada.store) & set(ben.load())
    assert ben.total == 8


def test_discarding_gives_a_record_to_others(team: Team) -> None:
    dataset = team.dataset(2)
    ada, ben = team.page(dataset, 0), team.page(dataset, 1)
    (record,) = ada.load()
    assert record not in ben.load()
    ada.answer(record, "discarded")
    assert record in ben.fetch(1)


def test_filters_and_sorts_page_consistently(team: Team) -> None:
    dataset = team.dataset(30)
    page = team.page(dataset, 0)
    conditions = page.query["filters"]["and"]
    upper = {
        "type": "range",
        "scope": {"entity": "metadata", "metadata_property": "number"},
        "ge": 10,
    }
    order = {"scope": {"entity": "metadata", "metadata_property": "number"}, "order": "desc"}
    page.query = {"filters": {"and": [*conditions, upper]}, "sort": [order]}
    assert page.work() == 20
    numbers = [_number(team, record) for record in page.store]
    assert numbers == list(range(29, 9, -1))


def _number(team: Team, record: str) -> int:
    found: int = (
        team.owner.get(f"/records/{record}").raise_for_status().json()["metadata"]["number"]
    )
    return found


def test_the_owner_looks_without_holding_and_holds_after_answering(team: Team) -> None:
    dataset = team.dataset(12)
    owner = PageClient(team.server.url, dataset, team.server.api_key)
    annotator = team.page(dataset, 0)
    assert len(owner.load()) == 10
    assert len(annotator.load()) == 6
    assert not set(owner.load()) & set(annotator.store)
    owner.answer(owner.store[0])
    held = owner.load()
    assert held
    assert not set(held) & set(team.page(dataset, 1).load())


def test_searching_without_the_pages_own_filters_leases_nothing(team: Team) -> None:
    dataset = team.dataset(12)
    everything = {"filters": {"and": [PageClient("", "", "").query["filters"]["and"][0]]}}
    curious = team.page(dataset, 0, query=everything, many=50)
    assert len(curious.load()) == 12
    assert len(team.page(dataset, 1).load()) == 6
    assert curious.total == 12


def test_a_busy_minute_starves_nobody(team: Team) -> None:
    """Someone loads a page and leaves it; the others finish everything else meanwhile."""
    dataset = team.dataset(40)
    idle = team.page(dataset, 0)
    held = set(idle.load())
    stop = threading.Event()
    others = [team.page(dataset, person) for person in range(1, 5)]
    with ThreadPoolExecutor(4) as people:
        done = sum(people.map(lambda page: page.work(0.0, stop), others))
    assert done == 40 - len(held)
    for record in held:
        idle.answer(record)
    assert set(team.submissions(dataset).values()) == {1}
