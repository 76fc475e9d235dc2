"""A vocabulary of what several people turned to: no item and no category is one person's own."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events.schema import EventRecord, ItemRecord
from training.history.vocabulary import MIN_PEOPLE, build_vocabulary


def _event(user: str, item: str, number: int) -> EventRecord:
    return EventRecord(
        id=f"{user}{number}", type="view_item", user=user, time_ms=number, received_ms=0,
        items=[ItemRecord(item, 1.0, None, f"of-{item}")],
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=60))
def test_what_one_person_alone_turned_to_is_not_known(touches: list[tuple[str, str]]) -> None:
    events = [_event(user, item, n) for n, (user, item) in enumerate(touches)]
    histories = [(user, [e for e in events if e.user == user]) for user in "abc"]
    people = {item: {user for user, other in touches if other == item} for item in "xyz"}
    often = {item for item in "xyz" if sum(other == item for _, other in touches) >= 5}
    shared = {item for item in "xyz" if len(people[item]) >= MIN_PEOPLE}
    found = build_vocabulary(histories, until_ms=1000)
    assert set(found.items) == often & shared
    assert set(found.categories) == {f"of-{item}" for item in shared}
    assert set(build_vocabulary(histories, until_ms=1000, support=1).items) == {
        item for item in "xyz" if people[item]
    }
