"""Who waits: tickets, their queue at each endpoint, and the rings of endpoints that the total limit blocks."""

from cpython.object cimport PyTypeObject, traverseproc, visitproc
from cpython.ref cimport PyObject

from _cpool.atomics cimport exchange_pointer, load_int, load_pointer
from _cpool.lock cimport decref_alive
from _cpool.structs cimport T_CLOSED, T_CONNECTION, T_NOTHING, T_SLOT, T_WAITING

__all__ = ('CLOSED', 'CONNECTION', 'NOTHING', 'SLOT', 'WAITING', 'Ticket')

NOTHING = T_NOTHING
WAITING = T_WAITING
CONNECTION = T_CONNECTION
SLOT = T_SLOT
CLOSED = T_CLOSED


cdef class Ticket:
    """One caller's request, and what it was granted. The core changes it, in one step with its own state.

    Whatever goes wrong in the caller, the ticket tells what has to be given back.

    :param holder: identifier of the thread that asks
    :param notify: called without any lock when the ticket's state changed or it got a victim; without it, the owner
        sleeps in :meth:`wait`
    """

    def __cinit__(self):
        self.c.owner = <PyObject *>self

    def __init__(self, unsigned long holder=0, notify=None):
        if self.parker is not None or self.notify is not None:
            raise RuntimeError('the ticket is in use')
        self.c.holder = holder
        self.notify = notify
        if notify is None:
            self.parker = Parker()

    def __dealloc__(self):
        if self.c.record != NULL:
            decref(self.c.record.owner)
        if self.c.victim != NULL:
            decref(self.c.victim.owner)

    @property
    def holder(self):
        """Identifier of the thread that asks."""
        return self.c.holder

    @property
    def state(self):
        """What the ticket holds or waits for."""
        return load_int(&self.c.state)

    @property
    def record(self):
        """The connection granted."""
        return None if self.c.record == NULL else <object>self.c.record.owner

    @record.setter
    def record(self, Record value):
        cdef record_t *former = self.c.record
        if value is None:
            self.c.record = NULL
        else:
            incref(value.c.owner)
            self.c.record = &value.c
        if former != NULL:
            decref(former.owner)

    @property
    def victim(self):
        """A connection that the owner is to dispose of, so that a slot becomes free."""
        cdef record_t *victim = <record_t *>load_pointer(&self.c.victim)
        return None if victim == NULL else <object>victim.owner

    @property
    def on_duty(self):
        """Its owner disposes of a victim, or was told to."""
        return bool(load_int(&self.c.on_duty))

    cpdef bint wait(self, timeout=None) except -1:
        """Sleep until the core has something to tell; what it is, ``state`` and ``victim`` say.

        :param timeout: seconds to sleep at the most, ``None`` for no bound
        :return: whether it was woken
        """
        if self.parker is None:
            raise RuntimeError('this ticket has a notify callback and cannot be waited for')
        return self.parker.park(timeout)

    cpdef wake(self):
        """Tell the owner. Called without any lock."""
        if self.parker is not None:
            self.parker.unpark()
        elif self.notify is not None:
            self.notify()

    cpdef Record take_victim(self):
        """Take over the duty to dispose of the victim; ``None`` if there is none (any more)."""
        cdef record_t *victim = <record_t *>exchange_pointer(&self.c.victim, NULL)
        cdef Record answer
        if victim == NULL:
            return None
        answer = <Record>victim.owner
        decref_alive(victim.owner)  # the ticket's reference becomes the answer's
        return answer

    def revoke(self):
        """Take away whatever the ticket waits for or holds: that is of the process that this one was forked from."""
        self.c.state = T_CLOSED
        self.c.endpoint = NULL
        self.take_victim()
        self.record = None


# The garbage collector must be told of the references to records, which are behind pointers.

cdef traverseproc traverse_attributes = (<PyTypeObject *>Ticket).tp_traverse


cdef int traverse(PyObject *ticket, visitproc visit, void *arg) except -1:
    cdef int answer = traverse_attributes(ticket, visit, arg)
    if not answer and (<Ticket>ticket).c.record != NULL:
        answer = visit((<Ticket>ticket).c.record.owner, arg)
    if not answer and (<Ticket>ticket).c.victim != NULL:
        answer = visit((<Ticket>ticket).c.victim.owner, arg)
    return answer


(<PyTypeObject *>Ticket).tp_traverse = traverse
