"""Which tasks hold what a timed-out acquire has waited for."""

import asyncio
from typing import Any, FrozenSet, List
from weakref import WeakValueDictionary

from .._core import current_holder, holder_of
from .._messages import acquired_by

__all__ = ('Holders',)


class Holders:
    """Finds the tasks behind the numbers by which a core knows its holders.

    A number may be that of a task which has ended, of one that another task was started with the context of, or of no
    task at all. Those found to be no task's are remembered: thousands of acquires that time out at the same time must not
    look through all tasks one after the other.
    """

    def __init__(self) -> None:
        self._tasks: 'WeakValueDictionary[int, asyncio.Task[Any]]' = WeakValueDictionary()
        self._unknown: FrozenSet[int] = frozenset()

    def tell(self, holders: List[int]) -> str:
        """Return what a message says of who holds connections.

        :param holders: the number of the holder of each connection
        """
        me = current_holder()
        if any(self._find(holder) is None for holder in holders if holder not in self._unknown):
            self._tasks = WeakValueDictionary({holder_of(task): task for task in asyncio.all_tasks()})
            self._unknown = frozenset(holders).difference(self._tasks)
        tasks = [self._find(holder) for holder in holders]
        named = ['an unknown task' if task is None else task.get_name() for task in tasks]
        return acquired_by(named, holders.count(me) if me else 0, 'task')

    def _find(self, holder: int) -> 'asyncio.Task[Any] | None':
        task = self._tasks.get(holder) if holder else None
        return None if task is None or task.done() else task
