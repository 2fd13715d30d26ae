from typing import Any, List

import pytest
from support.core_twins import Twin, twins_of


@pytest.mark.parametrize('twin', twins_of('table', 'LentTable'))
class TestLentTable:
    def table(self, twin: Twin) -> Any:
        return twin.get('table', 'LentTable')()

    def records(self, twin: Twin, *conns: object) -> List[Any]:
        return [twin.get('record', 'Record')(conn, 'a', 0.0, 1.0) for conn in conns]

    def test_a_record_is_found_by_the_identity_of_its_connection(self, twin: Twin) -> None:
        one, other = [1], [1]
        table, (record, _) = self.table(twin), self.records(twin, one, other)
        table.add(record)
        assert table.find(one) == [record]
        assert table.find(other) == [], 'it is only equal'

    def test_a_connection_need_not_be_hashable_nor_comparable(self, twin: Twin) -> None:
        class Hostile:
            __hash__ = None  # type: ignore[assignment]

            def __eq__(self, other: object) -> bool:
                raise ArithmeticError

        conn = Hostile()
        table, (record,) = self.table(twin), self.records(twin, conn)
        table.add(record)
        (found,) = table.find(conn)
        assert found is record

    @pytest.mark.parametrize('index', range(3))
    def test_records_of_the_same_object_are_all_found_and_can_go_in_any_order(self, twin: Twin, index: int) -> None:
        conn = object()
        table, records = self.table(twin), self.records(twin, conn, conn, conn)
        for record in records:
            table.add(record)
        assert set(table.find(conn)) == set(records)
        assert len(table) == 3
        gone = records.pop(index)
        table.remove(gone)
        assert set(table.find(conn)) == set(records)
        table.add(gone)
        assert set(table.find(conn)) == {*records, gone}
        assert len(table.find(conn)) == len(table) == 3

    def test_an_emptied_table_finds_nothing_and_keeps_nothing(self, twin: Twin) -> None:
        table, records = self.table(twin), self.records(twin, *(object() for _ in range(100)))
        for record in records:
            table.add(record)
        assert table.any() in records
        for record in records:
            table.remove(record)
            assert table.find(record.conn) == []
        assert (len(table), table.any()) == (0, None)
        assert not table._buckets

    def test_a_record_that_was_removed_can_be_added_again(self, twin: Twin) -> None:
        table, (record, other) = self.table(twin), self.records(twin, 'conn', 'conn')
        for _ in range(3):
            table.add(record)
            table.add(other)
            table.remove(record)
            table.remove(other)
        table.add(record)
        assert table.find(record.conn) == [record]


@pytest.mark.parametrize('twin', twins_of('endpoint', 'EndpointTable'))
class TestEndpointTable:
    def table(self, twin: Twin) -> Any:
        return twin.get('endpoint', 'EndpointTable')()

    def endpoint(self, twin: Twin, key: str, key_hash: int = 7) -> Any:
        return twin.get('endpoint', 'Endpoint')(key, key_hash)

    def test_an_endpoint_is_in_the_bucket_of_its_hash(self, twin: Twin) -> None:
        table, endpoint = self.table(twin), self.endpoint(twin, 'a')
        assert table.insert(endpoint, table.bucket(7))
        assert table.bucket(7) == (endpoint,)
        assert table.bucket(8) == ()
        assert list(table) == [endpoint]
        assert len(table) == 1

    def test_an_endpoint_is_not_inserted_if_its_bucket_has_changed_since_it_was_searched(self, twin: Twin) -> None:
        table, bucket = self.table(twin), self.table(twin).bucket(7)
        assert table.insert(self.endpoint(twin, 'a'), bucket)
        assert not table.insert(self.endpoint(twin, 'b'), bucket)
        assert [endpoint.key for endpoint in table] == ['a']

    def test_a_bucket_from_which_another_was_removed_has_changed_too(self, twin: Twin) -> None:
        table = self.table(twin)
        first, second = self.endpoint(twin, 'a'), self.endpoint(twin, 'b')
        table.insert(first, table.bucket(7))
        table.insert(second, table.bucket(7))
        bucket = table.bucket(7)
        table.remove(first)
        assert not table.insert(self.endpoint(twin, 'c'), bucket)
        assert table.bucket(7) == (second,)

    def test_a_bucket_that_somebody_looks_at_does_not_change(self, twin: Twin) -> None:
        table, first = self.table(twin), self.endpoint(twin, 'a')
        table.insert(first, table.bucket(7))
        bucket = table.bucket(7)
        table.insert(self.endpoint(twin, 'b'), bucket)
        table.remove(first)
        assert bucket == (first,)

    def test_a_removed_endpoint_says_so_and_nothing_is_left_of_it(self, twin: Twin) -> None:
        table, endpoint = self.table(twin), self.endpoint(twin, 'a')
        table.insert(endpoint, table.bucket(7))
        assert not endpoint.removed
        table.remove(endpoint)
        assert endpoint.removed
        assert (len(table), list(table), table._buckets) == (0, [], {})

    def test_endpoints_of_one_hash_go_in_any_order(self, twin: Twin) -> None:
        for index in range(3):
            table, endpoints = self.table(twin), [self.endpoint(twin, key) for key in 'abc']
            for endpoint in endpoints:
                assert table.insert(endpoint, table.bucket(7))
            table.remove(endpoints.pop(index))
            assert list(table) == endpoints
            assert len(table) == 2
