"""By what number a task is known as a holder of connections."""

from asyncio import Task, current_task
from typing import Any

__all__ = ('current_holder', 'holder_of')


def current_holder() -> int:
    """Return the number of the running task; 0 if nothing of the kind runs."""
    task = current_task()
    return 0 if task is None else holder_of(task)


def holder_of(task: 'Task[Any]') -> int:
    """Return the number of a task; 0 if that cannot be told.

    :param task: a task
    """
    return id(task)
