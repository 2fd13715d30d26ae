"""One pooled connection, as the core sees it."""

from cpython.ref cimport PyObject

from _cpool.atomics cimport exchange_int, load_int, load_ulong
from _cpool.structs cimport S_DISPOSING, S_GONE, S_IDLE_CORE, S_IDLE_EXTRA, S_INHERITED, S_LENT, S_RETURNING

__all__ = ('DISPOSING', 'GONE', 'IDLE_CORE', 'IDLE_EXTRA', 'INHERITED', 'LENT', 'RETURNING', 'Record')

IDLE_CORE = S_IDLE_CORE
IDLE_EXTRA = S_IDLE_EXTRA
LENT = S_LENT
RETURNING = S_RETURNING
DISPOSING = S_DISPOSING
GONE = S_GONE
INHERITED = S_INHERITED


cdef class Record:
    """One connection and its place in the lists of its endpoint, in the expiry heap and in the table of lent ones.

    A record is in exactly one state, and in the one list of its endpoint that belongs to the state.
    """

    def __cinit__(self):
        self.c.owner = <PyObject *>self
        self.c.heap_index = -1
        self.c.state = S_GONE

    def __init__(self, conn, key, double created, double expires):
        if self.c.core or self.c.heap_index >= 0:
            raise RuntimeError('the record is in use')
        self.conn = conn
        self.key = key
        self.c.conn = <PyObject *>conn
        self.c.created = created
        self.c.expires = expires
        self.c.deadline = expires

    @property
    def state(self):
        return load_int(&self.c.state)

    @state.setter
    def state(self, int value):
        if self.c.core or not S_IDLE_CORE <= value <= S_INHERITED:
            raise RuntimeError('the state of a record is the affair of its core')
        self.c.state = value

    @property
    def created(self):
        return self.c.created

    @property
    def expires(self):
        """When its max_lifetime is over."""
        return self.c.expires

    @property
    def deadline(self):
        """While idle: when it is to be disposed of."""
        return self.c.deadline

    @deadline.setter
    def deadline(self, double value):
        self.c.deadline = value

    @property
    def sequence(self):
        """When it became idle, a number that grows from release to release: breaks ties between deadlines."""
        return self.c.sequence

    @sequence.setter
    def sequence(self, value):
        self.c.sequence = value

    @property
    def heap_index(self):
        """Where its entry is in the expiry heap, -1 for nowhere."""
        return self.c.heap_index

    @property
    def uses(self):
        """How often it has been lent: tells one loan from the next."""
        return self.c.uses

    @property
    def holder(self):
        """Identifier of the thread that holds it."""
        return load_ulong(&self.c.holder)

    cpdef bint claim(self):
        """Take it upon oneself to dispose of the connection; ``False`` if somebody else has."""
        return not exchange_int(&self.c.claimed, True)

    def __repr__(self):
        state = ('idle', 'idle extra', 'lent', 'returning', 'disposing', 'gone', 'inherited')[self.c.state]
        return f'<Record {state} uses={self.c.uses}>'
