# The data of the core. All of it is guarded by the core's lock (stripes.pxd says which part of it by which stripe), but
# for what its owner alone touches.
#
# Who owns what: a core holds one reference to the Record of each of its connections, from fulfil to disposed, and one
# to each Ticket in a queue; an endpoint_t is freed when it leaves the table, and while it is in the table its key is
# referenced. All other pointers are borrowed, and are void before what they point to is.

from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

cdef enum:
    # an idle connection, one of the first min_idle of its endpoint
    S_IDLE_CORE = 0
    # an idle one beyond them
    S_IDLE_EXTRA = 1
    # acquired by a user
    S_LENT = 2
    # given back, but a hook has yet to run
    S_RETURNING = 3
    # being disposed of; counts until that is done
    S_DISPOSING = 4
    # no longer of the pool
    S_GONE = 5
    # of the process that this one was forked from
    S_INHERITED = 6

cdef enum:
    T_NOTHING = 0
    T_WAITING = 1
    T_CONNECTION = 2
    T_SLOT = 3
    T_CLOSED = 4

cdef struct record_t:
    PyObject *owner        # its Record
    PyObject *conn         # referenced by the Record
    endpoint_t *endpoint   # NULL once it is gone
    uint64_t core          # serial number of the core that it belongs to, 0 for none
    record_t *prev         # neighbours in the list of the endpoint that it is in
    record_t *next
    record_t *chain        # next in its bucket of the table of lent ones
    endpoint_t *beneficiary  # whose waiters get the slot once it is disposed of
    double created
    double expires         # when its max_lifetime is over
    double deadline        # while idle: when it is to be disposed of
    uint64_t sequence      # when it became idle: breaks ties
    uint64_t uses          # how often it has been lent: tells one loan from the next
    Py_ssize_t heap_index  # where its entry is, -1 for nowhere
    size_t stripe          # that of its endpoint, of which it outlives it
    unsigned long holder   # identifier of the thread that holds it
    int state
    int claimed            # somebody has taken it upon himself to dispose of it

cdef struct list_t:
    record_t *head
    record_t *tail
    Py_ssize_t count

cdef struct ticket_t:
    PyObject *owner        # its Ticket
    endpoint_t *endpoint   # NULL unless it waits or holds something
    uint64_t core          # serial number of the core that it asked, 0 for none
    queue_t *queue         # that it is in
    ticket_t *prev         # neighbours in the queue
    ticket_t *next
    ticket_t *woken_next   # next among those that the present operation wakes
    record_t *record       # the connection granted; the ticket holds a reference to its Record
    record_t *victim       # to be disposed of by the owner; the ticket holds a reference to its Record
    uint64_t order         # when it arrived, counted in requests: its place in the queue
    unsigned long holder   # identifier of the thread that asks
    int state
    int on_duty            # its owner disposes of a victim, or was told to
    int is_woken           # among those that the present operation wakes

cdef struct queue_t:
    ticket_t *head
    ticket_t *tail
    ticket_t *off_duty     # the first that is not on duty
    Py_ssize_t count

cdef struct endpoint_t:
    PyObject *key
    Py_hash_t hash
    endpoint_t *bucket_next
    list_t idle_core
    list_t idle_extra
    list_t lent            # acquired, those whose release has begun included
    queue_t waiters
    Py_ssize_t reserved    # slots in which a connection is being created or disposed of
    Py_ssize_t evicting    # disposals whose slot will go to this endpoint's waiters
    Py_ssize_t own_evicting  # those among them that are of its own connections
    ring_t *ring           # that it is in because the total limit blocks its waiters
    endpoint_t *ring_prev
    endpoint_t *ring_next
    Py_ssize_t bypassed    # hand-offs to others while it was the head of its ring

cdef struct ring_t:
    endpoint_t *head
    endpoint_t *tail

cdef inline Py_ssize_t slots(endpoint_t *endpoint) noexcept nogil:
    # all slots of the endpoint that are in use
    return endpoint.idle_core.count + endpoint.idle_extra.count + endpoint.lent.count + endpoint.reserved

cdef struct aftermath_t:
    # what an operation leaves to be done once the lock is released
    ticket_t *woken_head
    ticket_t *woken_tail
    endpoint_t *removed
