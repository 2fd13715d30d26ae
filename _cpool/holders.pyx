"""By what number a task is known as a holder of connections."""

import gc
from contextvars import Context

from cpython.ref cimport PyObject

__all__ = ('current_holder', 'holder_of')


def current_holder():
    """Return the number of the running task; 0 if nothing of the kind runs."""
    return holder_now()


def holder_of(task):
    """Return the number of a task; 0 if that cannot be told.

    :param task: a task
    """
    # before Python 3.12 a task does not tell its context, which is the first that it refers to
    candidates = (task.get_context(),) if hasattr(task, 'get_context') else gc.get_referents(task)
    for candidate in candidates:
        if type(candidate) is Context:
            return <unsigned long><size_t><PyObject *>candidate
    return 0
