import random
from typing import Any, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.core_twins import Twin, twins_of

pytestmark = pytest.mark.parametrize('twin', twins_of('heap', 'ExpiryHeap'))


class Shelf:
    """A heap, and its records under the numbers that the tests give them."""

    def __init__(self, twin: Twin):
        self.heap = twin.get('heap', 'ExpiryHeap')()
        self._record = twin.get('record', 'Record')
        self.idle = twin.get('record', 'IDLE_CORE')
        self.extra = twin.get('record', 'IDLE_EXTRA')
        self.lent = twin.get('record', 'LENT')
        self.sequence = 0

    def record(self, deadline: float) -> Any:
        """An idle record without an entry."""
        record = self._record(object(), 'a', 0.0, 1e9)
        self.return_(record, deadline, arm=False)
        return record

    def armed(self, *deadlines: float) -> List[Any]:
        records = [self.record(deadline) for deadline in deadlines]
        for record in records:
            self.heap.arm(record)
        return records

    def return_(self, record: Any, deadline: float, arm: bool = True) -> None:
        """The record becomes idle again."""
        self.sequence += 1
        record.state = self.idle
        record.deadline = deadline
        record.sequence = self.sequence
        if arm:
            self.heap.arm(record)

    def drain(self) -> List[Any]:
        records = []
        record = self.heap.nearest()
        while record is not None:
            records.append(record)
            self.heap.disarm(record)
            record = self.heap.nearest()
        return records


def test_an_entry_whose_record_has_got_another_deadline_is_not_trusted(twin: Twin) -> None:
    shelf = Shelf(twin)
    first, second = shelf.armed(10.0, 15.0)
    first.deadline = 20.0
    assert shelf.heap.nearest() is second
    assert shelf.drain() == [second, first]


def test_an_empty_heap_has_no_nearest_record_and_no_top(twin: Twin) -> None:
    shelf = Shelf(twin)
    assert shelf.heap.nearest() is None
    assert shelf.heap.top is None
    assert len(shelf.heap) == 0


def test_records_come_out_by_deadline_whatever_the_order_of_arming(twin: Twin) -> None:
    shelf = Shelf(twin)
    deadlines = [float(n) for n in range(200)]
    random.Random(1).shuffle(deadlines)
    shelf.armed(*deadlines)
    assert [record.deadline for record in shelf.drain()] == sorted(deadlines)


def test_equal_deadlines_come_out_in_the_order_of_release(twin: Twin) -> None:
    shelf = Shelf(twin)
    records = [shelf.record(5.0) for _ in range(50)]
    for record in random.Random(2).sample(records, 50):
        shelf.heap.arm(record)
    assert shelf.drain() == records


def test_the_top_is_the_deadline_of_the_earliest_entry(twin: Twin) -> None:
    shelf = Shelf(twin)
    shelf.armed(7.0, 3.0, 5.0)
    assert shelf.heap.top == 3.0


def test_looking_at_the_nearest_leaves_it_where_it_is(twin: Twin) -> None:
    shelf = Shelf(twin)
    (record,) = shelf.armed(3.0)
    assert shelf.heap.nearest() is record
    assert shelf.heap.nearest() is record
    assert len(shelf.heap) == 1


def test_a_record_has_one_entry_however_often_it_is_armed(twin: Twin) -> None:
    shelf = Shelf(twin)
    record, _ = shelf.armed(3.0, 4.0)
    for _ in range(5):
        shelf.heap.arm(record)
    assert len(shelf.heap) == 2


def test_an_entry_stays_where_it_is_while_the_deadline_of_its_record_moves_away(twin: Twin) -> None:
    shelf = Shelf(twin)
    record, _ = shelf.armed(3.0, 4.0)
    shelf.return_(record, 10.0)
    assert shelf.heap.top == 3.0, 'arming again is to cost nothing'
    assert record.heap_index == 0


def test_the_nearest_is_told_by_the_true_deadlines_not_by_stale_entries(twin: Twin) -> None:
    shelf = Shelf(twin)
    moved, other = shelf.armed(3.0, 4.0)
    shelf.return_(moved, 10.0)
    assert shelf.heap.nearest() is other
    assert shelf.heap.top == 4.0, 'the stale entry has been corrected'
    assert shelf.drain() == [other, moved]


def test_a_stale_entry_of_an_equal_deadline_goes_behind_those_released_before_it(twin: Twin) -> None:
    shelf = Shelf(twin)
    first, second = shelf.armed(3.0, 3.0)
    shelf.return_(first, 3.0)
    assert shelf.drain() == [second, first]


def test_arming_with_an_earlier_deadline_moves_the_entry_forward(twin: Twin) -> None:
    shelf = Shelf(twin)
    nearest, other = shelf.armed(3.0, 100.0)
    shelf.return_(other, 1.0)
    assert shelf.heap.top == 1.0
    assert shelf.drain() == [other, nearest]


def test_extras_count_as_idle(twin: Twin) -> None:
    shelf = Shelf(twin)
    (record,) = shelf.armed(3.0)
    record.state = shelf.extra
    assert shelf.heap.nearest() is record


def test_the_entry_of_a_record_in_use_is_dropped_when_it_comes_to_the_top(twin: Twin) -> None:
    shelf = Shelf(twin)
    busy, idle = shelf.armed(3.0, 4.0)
    busy.state = shelf.lent
    assert shelf.heap.nearest() is idle
    assert len(shelf.heap) == 1
    assert busy.heap_index == -1


def test_there_is_no_nearest_record_if_all_are_in_use(twin: Twin) -> None:
    shelf = Shelf(twin)
    for record in shelf.armed(3.0, 4.0, 5.0):
        record.state = shelf.lent
    assert shelf.heap.nearest() is None
    assert len(shelf.heap) == 0


def test_a_record_whose_entry_was_dropped_gets_a_new_one_on_its_return(twin: Twin) -> None:
    shelf = Shelf(twin)
    (record,) = shelf.armed(3.0)
    record.state = shelf.lent
    assert shelf.heap.nearest() is None
    shelf.return_(record, 8.0)
    assert shelf.heap.nearest() is record


def test_disarming_a_record_without_an_entry_changes_nothing(twin: Twin) -> None:
    shelf = Shelf(twin)
    (record,) = shelf.armed(3.0)
    shelf.heap.disarm(shelf.record(1.0))
    assert shelf.drain() == [record]


def test_disarming_twice_is_disarming_once(twin: Twin) -> None:
    shelf = Shelf(twin)
    record, other = shelf.armed(3.0, 4.0)
    shelf.heap.disarm(record)
    shelf.heap.disarm(record)
    assert shelf.drain() == [other]


@pytest.mark.parametrize('index', range(15))
def test_disarming_from_anywhere_leaves_the_others_in_order(twin: Twin, index: int) -> None:
    shelf = Shelf(twin)
    records = shelf.armed(0.0, 50.0, 10.0, 60.0, 70.0, 20.0, 30.0, 65.0, 66.0, 75.0, 76.0, 21.0, 22.0, 31.0, 32.0)
    shelf.heap.disarm(records.pop(index))
    assert shelf.drain() == sorted(records, key=lambda record: float(record.deadline))


def test_an_entry_that_fills_a_gap_may_have_to_rise(twin: Twin) -> None:
    """The last entry belongs to a branch that may be nearer than the one in which it fills the gap."""
    shelf = Shelf(twin)
    records = shelf.armed(0.0, 100.0, 1.0, 110.0, 120.0, 2.0, 3.0)
    shelf.heap.disarm(records.pop(3))
    assert shelf.drain() == sorted(records, key=lambda record: float(record.deadline))


def test_a_new_entry_rises_along_its_own_branch(twin: Twin) -> None:
    shelf = Shelf(twin)
    first, *others = shelf.armed(1.0, 5.0, 2.0, 6.0, 7.0, 3.0)
    shelf.heap.disarm(first)
    others += shelf.armed(4.0)
    assert shelf.drain() == sorted(others, key=lambda record: float(record.deadline))


STEPS = st.lists(
    st.tuples(st.sampled_from(['new', 'lend', 'return', 'disarm', 'nearest']), st.integers(0, 50), st.integers(0, 12)),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_the_nearest_is_what_a_search_of_all_idle_records_finds(twin: Twin, steps: Any) -> None:
    shelf = Shelf(twin)
    records: List[Any] = []
    armed: List[Any] = []
    for what, which, deadline in steps:
        record = records[which % len(records)] if records else None
        if what == 'new' or record is None:
            record = shelf.record(float(deadline))
            records.append(record)
            shelf.heap.arm(record)
            armed.append(record)
        elif what == 'lend':
            record.state = shelf.lent
        elif what == 'return' and record.state == shelf.lent:
            shelf.return_(record, float(deadline))
            if record not in armed:
                armed.append(record)
        elif what == 'disarm':
            shelf.heap.disarm(record)
            if record in armed:
                armed.remove(record)
            record.state = shelf.lent
        idle = [r for r in armed if r.state == shelf.idle]
        top = shelf.heap.top
        assert not idle or (top is not None and top <= min(r.deadline for r in idle))
        if what == 'nearest':
            assert shelf.heap.nearest() is min(idle, key=lambda r: (r.deadline, r.sequence), default=None)
            armed = [r for r in armed if r.heap_index >= 0]
    idle = [r for r in armed if r.state == shelf.idle]
    assert shelf.drain() == sorted(idle, key=lambda r: (r.deadline, r.sequence))
