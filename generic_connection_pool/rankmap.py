"""A mapping that knows its smallest value at any time."""

from typing import Any, Dict, Generic, Iterator, List, MutableMapping, Optional, Protocol, TypeVar

__all__ = ('RankMap',)


class _Comparable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


KeyT = TypeVar('KeyT')
ValueT = TypeVar('ValueT', bound=_Comparable)


class RankMap(MutableMapping[KeyT, ValueT]):
    """A mapping that is also a binary heap over its values: the smallest one is at hand at any time.

    Looking up a key or the smallest value costs O(1); inserting, replacing and removing cost O(log n). Values are
    compared by ``<`` alone; equal ones come in the order of insertion, where a replaced value counts as inserted anew.
    A comparison that raises leaves the mapping as it was.

    Iteration goes over the keys as they were when it began, that of the smallest value first and the others in no
    particular order.
    """

    # Every change first finds, by comparisons only, the route along which entries have to move; then it moves them.

    def __init__(self) -> None:
        self._heap: List[_Entry[KeyT, ValueT]] = []  # the parent of place n is (n - 1) // 2
        self._entries: Dict[KeyT, _Entry[KeyT, ValueT]] = {}
        self._inserted = 0

    def insert(self, key: KeyT, value: ValueT) -> None:
        """Add a key.

        :param key: the key
        :param value: its value
        :raises KeyError: if the key is there already
        """
        if key in self._entries:
            raise KeyError(key)
        self.insert_or_replace(key, value)

    def insert_or_replace(self, key: KeyT, value: ValueT) -> Optional[ValueT]:
        """Add a key, or give it another value.

        :param key: the key
        :param value: its value
        :return: the value that it had before, or ``None``
        """
        previous = self._entries.get(key)
        place = len(self._heap) if previous is None else previous.place
        entry = _Entry(key if previous is None else previous.key, value, self._inserted, place)
        route = self._route(place, entry)
        self._entries[key] = entry
        self._inserted += 1
        if previous is None:
            self._heap.append(entry)
        self._move(route, entry)
        return None if previous is None else previous.value

    def top(self) -> Optional[ValueT]:
        """Return the smallest value, or ``None`` if there is none."""
        return self._heap[0].value if self._heap else None

    def next(self) -> Optional[ValueT]:
        """Remove and return the smallest value, or return ``None`` if there is none."""
        return self.remove(self._heap[0].key) if self._heap else None

    def remove(self, key: KeyT) -> Optional[ValueT]:
        """Remove a key.

        :param key: the key
        :return: the value that it had, or ``None`` if it is not there
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        last = self._heap[-1]
        route = [] if entry is last else self._route(entry.place, last)
        del self._entries[key]
        self._heap.pop()
        if route:
            self._move(route, last)
        return entry.value

    def clear(self) -> None:
        """Remove everything."""
        self._heap.clear()
        self._entries.clear()

    def __getitem__(self, key: KeyT) -> ValueT:
        return self._entries[key].value

    def __setitem__(self, key: KeyT, value: ValueT) -> None:
        self.insert_or_replace(key, value)

    def __delitem__(self, key: KeyT) -> None:
        if key not in self._entries:
            raise KeyError(key)
        self.remove(key)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[KeyT]:
        return iter([entry.key for entry in self._heap])

    def __len__(self) -> int:
        return len(self._heap)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({dict(self)!r})'

    def _route(self, place: int, entry: '_Entry[KeyT, ValueT]') -> List[int]:
        """Return the places from a free one to the one where the entry belongs.

        An entry that is about to move away from the end is met there as its own child, which ends the route.
        """
        heap = self._heap
        route = [place]
        while place > 0 and entry.precedes(heap[(place - 1) // 2]):
            place = (place - 1) // 2
            route.append(place)
        if len(route) > 1:
            return route
        while (child := 2 * place + 1) < len(heap):
            if child + 1 < len(heap) and heap[child + 1].precedes(heap[child]):
                child += 1
            if not heap[child].precedes(entry):
                break
            place = child
            route.append(place)
        return route

    def _move(self, route: List[int], entry: '_Entry[KeyT, ValueT]') -> None:
        """Move the entries along the route one step towards its beginning, and put the entry at its end."""
        for to, come_from in zip(route, route[1:]):
            self._heap[to] = self._heap[come_from]
            self._heap[to].place = to
        self._heap[route[-1]] = entry
        entry.place = route[-1]


class _Entry(Generic[KeyT, ValueT]):
    __slots__ = ('key', 'value', 'inserted', 'place')

    def __init__(self, key: KeyT, value: ValueT, inserted: int, place: int) -> None:
        self.key = key
        self.value = value
        self.inserted = inserted
        self.place = place

    def precedes(self, other: '_Entry[KeyT, ValueT]') -> bool:
        if self.value < other.value:
            return True
        return not other.value < self.value and self.inserted < other.inserted
