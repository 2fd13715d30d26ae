import random
from typing import Any, List

import pytest
from support.core_twins import Twin, twins_of


def records_of(twin: Twin, count: int, deadline: float = 100.0) -> List[Any]:
    record = twin.get('record', 'Record')
    return [record(object(), 'a', 0.0, deadline) for _ in range(count)]


@pytest.mark.parametrize('twin', twins_of('deque', 'RecordList'))
class TestRecordList:
    def test_records_stand_in_the_order_in_which_they_were_appended(self, twin: Twin) -> None:
        records, queue = records_of(twin, 5), twin.get('deque', 'RecordList')()
        for record in records:
            queue.append(record)
        assert list(queue) == records
        assert len(queue) == 5
        assert (queue.head, queue.tail) == (records[0], records[-1])

    def test_a_record_can_be_removed_from_any_place_and_appended_again(self, twin: Twin) -> None:
        for index in range(4):
            records, queue = records_of(twin, 4), twin.get('deque', 'RecordList')()
            for record in records:
                queue.append(record)
            queue.remove(records[index])
            queue.append(records[index])
            expected = records[:index] + records[index + 1 :] + [records[index]]
            assert list(queue) == expected
            assert (queue.head, queue.tail) == (expected[0], expected[-1])

    def test_a_list_from_which_all_were_removed_is_empty_and_usable(self, twin: Twin) -> None:
        records, queue = records_of(twin, 3), twin.get('deque', 'RecordList')()
        for record in records:
            queue.append(record)
        for record in (records[1], records[0], records[2]):
            queue.remove(record)
        assert (list(queue), len(queue), queue.head, queue.tail) == ([], 0, None, None)
        queue.append(records[1])
        assert list(queue) == [records[1]]

    def test_a_removed_record_knows_no_neighbours(self, twin: Twin) -> None:
        records, queue = records_of(twin, 3), twin.get('deque', 'RecordList')()
        for record in records:
            queue.append(record)
        queue.remove(records[1])
        assert (records[1].prev, records[1].next) == (None, None)
        assert list(queue) == [records[0], records[2]]
        assert records[2].prev is records[0]

    def test_it_does_what_a_list_does(self, twin: Twin) -> None:
        draw = random.Random(3)
        queue, model, outside = twin.get('deque', 'RecordList')(), [], records_of(twin, 20)
        for _ in range(500):
            if outside and draw.random() < 0.5:
                record = outside.pop(draw.randrange(len(outside)))
                queue.append(record)
                model.append(record)
            elif model:
                record = model.pop(draw.randrange(len(model)))
                queue.remove(record)
                outside.append(record)
            assert list(queue) == model and len(queue) == len(model)


@pytest.mark.parametrize('twin', twins_of('deque', 'IdleDeque'))
class TestIdleDeque:
    def take_all(self, deque: Any, now: float = 0.0) -> List[Any]:
        taken = []
        record = deque.first(now)
        while record is not None:
            deque.remove(record)
            taken.append(record)
            record = deque.first(now)
        return taken

    def test_core_connections_are_taken_first_in_first_out(self, twin: Twin) -> None:
        records, deque = records_of(twin, 3), twin.get('deque', 'IdleDeque')()
        for record in records:
            deque.push(record, False)
        assert self.take_all(deque) == records

    def test_extras_are_taken_last_in_first_out(self, twin: Twin) -> None:
        records, deque = records_of(twin, 3), twin.get('deque', 'IdleDeque')()
        for record in records:
            deque.push(record, True)
        assert self.take_all(deque) == records[::-1]

    def test_extras_are_taken_only_when_no_core_connection_is_idle(self, twin: Twin) -> None:
        records, deque = records_of(twin, 4), twin.get('deque', 'IdleDeque')()
        for record, extra in zip(records, (True, False, True, False)):
            deque.push(record, extra)
        assert self.take_all(deque) == [records[1], records[3], records[2], records[0]]

    def test_pushing_sets_the_state(self, twin: Twin) -> None:
        (core, extra), deque = records_of(twin, 2), twin.get('deque', 'IdleDeque')()
        deque.push(core, False)
        deque.push(extra, True)
        assert core.state == twin.get('record', 'IDLE_CORE')
        assert extra.state == twin.get('record', 'IDLE_EXTRA')

    @pytest.mark.parametrize('extra', [False, True])
    def test_a_record_is_passed_over_from_its_deadline_on(self, twin: Twin, extra: bool) -> None:
        (record,), deque = records_of(twin, 1, 10.0), twin.get('deque', 'IdleDeque')()
        deque.push(record, extra)
        assert deque.first(9.999) is record
        assert deque.first(10.0) is None
        assert len(deque) == 1

    @pytest.mark.parametrize('extra', [False, True])
    def test_others_are_found_behind_those_whose_deadline_has_come(self, twin: Twin, extra: bool) -> None:
        expired, deque = records_of(twin, 2, 10.0), twin.get('deque', 'IdleDeque')()
        (good,) = records_of(twin, 1)
        for record in (expired[0], good, expired[1]):
            deque.push(record, extra)
        assert deque.first(10.0) is good

    def test_an_extra_is_found_when_all_core_ones_are_due(self, twin: Twin) -> None:
        (expired,), (good,), deque = records_of(twin, 1, 10.0), records_of(twin, 1), twin.get('deque', 'IdleDeque')()
        deque.push(expired, False)
        deque.push(good, True)
        assert deque.first(10.0) is good

    def test_it_holds_and_counts_both_kinds(self, twin: Twin) -> None:
        records, deque = records_of(twin, 4), twin.get('deque', 'IdleDeque')()
        for index, record in enumerate(records):
            deque.push(record, bool(index % 2))
        assert len(deque) == 4
        assert list(deque) == [records[0], records[2], records[1], records[3]]
        deque.remove(records[1])
        deque.remove(records[0])
        assert list(deque) == [records[2], records[3]]
