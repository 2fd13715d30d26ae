"""What one pool has: its endpoints, connections and limits; how they are found, and who owns them."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject_RichCompareBool, Py_EQ, PyTypeObject, traverseproc, visitproc
from cpython.ref cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t

from _cpool.atomics cimport count, load_int, store_int
from _cpool.found cimport found_add, found_complete, found_list, found_t, holds
from _cpool.invariants cimport violation
from _cpool.lock cimport decref, incref, mutex_lock, mutex_unlock
from _cpool.stripes cimport STRIPES, hold, hold_all, release, release_all, stripe_of, stripes_init
from _cpool.structs cimport (
    S_GONE, S_INHERITED, S_LENT, T_NOTHING, aftermath_t, endpoint_t, list_t, queue_t, record_t, slots, ticket_t,
)
from _cpool.table cimport endpoints_bucket, endpoints_grow, endpoints_insert, lent_bucket

__all__ = ('Store',)

# Hand-offs among others that an endpoint waiting for the total limit lets pass at the least, whatever that limit: each
# turn costs somebody a new connection, so that turns must not be too frequent.
cdef Py_ssize_t LEAST_BYPASS = 16


cdef uint64_t last_serial = 0


cdef class Store:
    """The state of one pool.

    :param min_idle: connections of an endpoint that are kept until their lifetime is over, 0 or more
    :param max_size: connections of one endpoint at the most, 1 or more
    :param total_max_size: connections of all endpoints at the most, 1 or more
    :param idle_timeout: seconds until an idle connection beyond ``min_idle`` is due, 0 or more
    :param max_lifetime: seconds until any connection is due, 0 or more
    """

    def __init__(
        self, Py_ssize_t min_idle, Py_ssize_t max_size, Py_ssize_t total_max_size, double idle_timeout,
        double max_lifetime
    ):
        self.s.min_idle = min_idle
        self.s.max_size = max_size
        self.s.total_max_size = total_max_size
        self.s.idle_timeout = idle_timeout
        self.s.max_lifetime = max_lifetime
        self.s.bypass_limit = max(LEAST_BYPASS, total_max_size)

    def __cinit__(self):
        self.serial = count(&last_serial)
        stripes_init(self.s.stripes)
        self.records = set()
        self.s.alarm_at = INFINITY

    def __dealloc__(self):
        cdef size_t i
        cdef endpoint_t *endpoint
        cdef endpoint_t *after
        free_queue(&self.s.closers)
        for i in range(<size_t>1 << self.s.endpoints.bits if self.s.endpoints.buckets != NULL else 0):
            endpoint = self.s.endpoints.buckets[i]
            while endpoint != NULL:
                after = endpoint.bucket_next
                free_endpoint(endpoint)
                endpoint = after
        PyMem_RawFree(self.s.endpoints.buckets)
        for i in range(STRIPES):
            PyMem_RawFree(self.s.stripes[i].lent.buckets)
        PyMem_RawFree(self.s.heap.entries)

    @property
    def min_idle(self):
        return self.s.min_idle

    @property
    def max_size(self):
        return self.s.max_size

    @property
    def total_max_size(self):
        return self.s.total_max_size

    @property
    def idle_timeout(self):
        return self.s.idle_timeout

    @property
    def max_lifetime(self):
        return self.s.max_lifetime

    @property
    def total(self):
        """Slots in use, of all endpoints."""
        mutex_lock(&self.s.stripes[0].mutex)
        cdef Py_ssize_t total = self.s.total
        mutex_unlock(&self.s.stripes[0].mutex)
        return total

    @property
    def closed(self):
        """Whether closing has begun."""
        # without the lock: a forked child asks, too, in which a thread that it does not have may hold it for ever
        return load_int(&self.s.closed) != 0

    @property
    def forced(self):
        """Connections were disposed of while they were acquired: their release is nobody's error."""
        mutex_lock(&self.s.stripes[0].mutex)
        cdef bint forced = self.s.forced
        mutex_unlock(&self.s.stripes[0].mutex)
        return forced

    # -- looking on

    cpdef Record find(self, object conn, object key):
        """The record of an acquired connection: of this very object or, if that is none of the pool's, of an equal one.

        :param conn: the connection
        :param key: its endpoint
        :return: the record, or ``None`` if the endpoint has not lent such a connection
        """
        cdef record_t *record
        cdef stripe_t *stripe = &self.s.stripes[stripe_of(hash(key))]
        mutex_lock(&stripe.mutex)
        record = lent_bucket(&stripe.lent, <PyObject *>conn)
        while record != NULL:
            if (
                record.conn == <PyObject *>conn
                and record.state == S_LENT
                and record.endpoint.key == <PyObject *>key
            ):
                incref(record.owner)
                break
            record = record.chain
        mutex_unlock(&stripe.mutex)
        if record != NULL:
            try:
                return <Record>record.owner
            finally:
                decref(record.owner)
        same = self._lent_as(conn)
        for found in same:
            if PyObject_RichCompareBool((<Record>found).key, key, Py_EQ):
                return found
        if same:
            return None
        for found in self._lent_by(key, conn):
            if equal((<Record>found).conn, conn):
                return found
        return None

    cdef list _lent_as(self, object conn):
        # the records of this very object
        cdef found_t found = found_t(NULL, 0, 0)
        cdef record_t *record
        cdef size_t i
        while True:
            hold_all(self.s.stripes)
            for i in range(STRIPES):
                record = lent_bucket(&self.s.stripes[i].lent, <PyObject *>conn)
                while record != NULL:
                    if record.conn == <PyObject *>conn and record.state == S_LENT:
                        found_add(&found, record)
                    record = record.chain
            release_all(self.s.stripes)
            if found_complete(&found):
                return found_list(&found)

    cdef list _lent_by(self, object key, object conn):
        # the records that the endpoint has lent; none if it knows this very object
        cdef found_t found = found_t(NULL, 0, 0)
        cdef endpoint_t *endpoint
        cdef record_t *record
        cdef stripe_t *stripe
        while True:
            stripe = self._locate_alone(key, &endpoint)
            if endpoint != NULL and not (
                holds(&endpoint.idle_core, <PyObject *>conn)
                or holds(&endpoint.idle_extra, <PyObject *>conn)
                or holds(&endpoint.lent, <PyObject *>conn)
            ):
                record = endpoint.lent.head
                while record != NULL:
                    if record.state == S_LENT:
                        found_add(&found, record)
                    record = record.next
            mutex_unlock(&stripe.mutex)
            if found_complete(&found):
                return found_list(&found)

    def size(self, key):
        """All slots of an endpoint that are in use."""
        return self._count(key, 0)

    def idle_size(self, key):
        """The idle connections of an endpoint."""
        return self._count(key, 1)

    def lent_size(self, key):
        """The acquired connections of an endpoint."""
        return self._count(key, 2)

    def waiting(self, key):
        """How many wait for a connection of an endpoint."""
        return self._count(key, 3)

    cdef Py_ssize_t _count(self, object key, int what) except -1:
        cdef endpoint_t *endpoint
        cdef Py_ssize_t count = 0
        cdef stripe_t *stripe = self._locate_alone(key, &endpoint)
        if endpoint != NULL:
            if what == 0:
                count = slots(endpoint)
            elif what == 1:
                count = endpoint.idle_core.count + endpoint.idle_extra.count
            elif what == 2:
                count = endpoint.lent.count
            else:
                count = endpoint.waiters.count
        mutex_unlock(&stripe.mutex)
        return count

    def holders(self, key):
        """Identifiers of the threads that hold an endpoint's connections, one for each."""
        cdef found_t found = found_t(NULL, 0, 0)
        cdef endpoint_t *endpoint
        cdef record_t *record
        cdef stripe_t *stripe
        while True:
            stripe = self._locate_alone(key, &endpoint)
            record = NULL if endpoint == NULL else endpoint.lent.head
            while record != NULL:
                found_add(&found, record)
                record = record.next
            mutex_unlock(&stripe.mutex)
            if found_complete(&found):
                return [record_.holder for record_ in found_list(&found)]

    def endpoints(self):
        """The keys of all endpoints that exist."""
        cdef list keys
        cdef endpoint_t *endpoint
        cdef size_t i
        cdef Py_ssize_t count = 0
        while True:
            keys = [None] * count
            count = 0
            hold_all(self.s.stripes)
            for i in range(<size_t>1 << self.s.endpoints.bits if self.s.endpoints.buckets != NULL else 0):
                endpoint = self.s.endpoints.buckets[i]
                while endpoint != NULL:
                    if count < len(keys):
                        keys[count] = <object>endpoint.key
                    count += 1
                    endpoint = endpoint.bucket_next
            release_all(self.s.stripes)
            if count == len(keys):
                return keys

    def disown(self):
        """For a forked child, which goes on with another core: nobody is served by this one any more, nor told. No lock
        is asked for, since a thread may hold it that the child does not have.

        :return: the connections, which are the parent's from now on
        """
        cdef list records = list(self.records)
        store_int(&self.s.closed, True)
        for record in records:
            (<Record>record).c.state = S_INHERITED
            (<Record>record).c.claimed = True
        return records

    def check_invariants(self):
        """For tests: raise an AssertionError if what the core keeps true is not."""
        cdef const char *text
        hold_all(self.s.stripes)
        text = violation(&self.s)
        if text == NULL and len(self.records) < self.s.records:  # another thread may be about to add or to remove one
            text = 'not all connections are among the records'
        release_all(self.s.stripes)
        if text != NULL:
            raise AssertionError(text.decode())

    # -- finding endpoints; the lock is not held while keys are compared

    cdef int _locate(self, object key, bint make, endpoint_t **found) except -1:
        # On return all stripes are held; if it raises, none is.
        return self._search(key, hash(key), NULL, make, found)

    cdef stripe_t *_locate_alone(self, object key, endpoint_t **found) except NULL:
        # On return the key's stripe is held, and no other; if it raises, none is.
        cdef Py_hash_t key_hash = hash(key)
        cdef stripe_t *stripe = &self.s.stripes[stripe_of(key_hash)]
        self._search(key, key_hash, stripe, False, found)
        return stripe

    cdef int _search(self, object key, Py_hash_t key_hash, stripe_t *stripe, bint make, endpoint_t **found) except -1:
        # A stripe, or all if it is NULL, is held on return. Making takes all.
        cdef endpoint_t *endpoint
        cdef uint64_t version, growth
        cdef bint same
        hold(self.s.stripes, stripe)
        endpoint = endpoints_bucket(&self.s.endpoints, key_hash)
        while endpoint != NULL:
            if endpoint.key == <PyObject *>key:
                break
            if endpoint.hash == key_hash:
                version = self.s.endpoints.versions[key_hash & 63]
                growth = self.s.endpoints.version
                incref(endpoint.key)
                release(self.s.stripes, stripe)
                same = compare_keys(endpoint.key, key)
                hold(self.s.stripes, stripe)
                if (
                    version != self.s.endpoints.versions[key_hash & 63] or growth != self.s.endpoints.version
                ):  # it may be gone: look again from the start
                    endpoint = endpoints_bucket(&self.s.endpoints, key_hash)
                    continue
                if same:
                    break
            endpoint = endpoint.bucket_next
        if endpoint == NULL and make:
            endpoint = self._make(key, key_hash)
            if endpoint == NULL:
                release(self.s.stripes, stripe)
                raise MemoryError('no memory for another endpoint')
        found[0] = endpoint
        return 0

    cdef endpoint_t *_make(self, object key, Py_hash_t key_hash) noexcept:
        cdef endpoint_t *endpoint
        if endpoints_grow(&self.s.endpoints) < 0:
            return NULL
        endpoint = <endpoint_t *>PyMem_RawCalloc(1, sizeof(endpoint_t))
        if endpoint != NULL:
            endpoint.key = <PyObject *>key
            endpoint.hash = key_hash
            incref(endpoint.key)
            endpoints_insert(&self.s.endpoints, endpoint)
        return endpoint

    cdef int _conclude(self, aftermath_t *after) except -1:
        # What an operation leaves to be done without the lock: wake, and drop the endpoints that it removed.
        cdef ticket_t *ticket = after.woken_head
        cdef ticket_t *next_ticket
        cdef endpoint_t *endpoint = after.removed
        cdef endpoint_t *next_endpoint
        if ticket == NULL and endpoint == NULL:
            return 0
        error = None
        while ticket != NULL:
            next_ticket = ticket.woken_next
            store_int(&ticket.is_woken, False)
            try:
                (<Ticket>ticket.owner).wake()
            except BaseException as exc:  # the others are woken nevertheless
                error = exc
            decref(ticket.owner)  # that of note_woken
            ticket = next_ticket
        while endpoint != NULL:
            next_endpoint = endpoint.bucket_next
            decref(endpoint.key)
            PyMem_RawFree(endpoint)
            endpoint = next_endpoint
        if error is not None:
            raise error
        return 0


cdef int compare_keys(PyObject *one, object other) except -1:
    # takes over a reference to the first key
    try:
        return PyObject_RichCompareBool(<object>one, other, Py_EQ)
    finally:
        decref(one)


cdef bint equal(object one, object other):
    try:
        return bool(one == other)
    except Exception:  # connections are told apart by identity: one whose __eq__ fails is no other's equal
        return False


cdef void free_records(list_t *records) noexcept:
    cdef record_t *record = records.head
    cdef record_t *after
    while record != NULL:
        after = record.next
        record.endpoint = NULL
        record.core = 0
        record.state = S_GONE
        decref(record.owner)
        record = after


cdef void free_queue(queue_t *queue) noexcept:
    cdef ticket_t *ticket = queue.head
    cdef ticket_t *after
    while ticket != NULL:
        after = ticket.next
        ticket.endpoint = NULL
        ticket.queue = NULL
        ticket.state = T_NOTHING
        decref(ticket.owner)
        ticket = after


cdef void free_endpoint(endpoint_t *endpoint) noexcept:
    # for a core that is about to be gone itself
    free_queue(&endpoint.waiters)
    free_records(&endpoint.idle_core)
    free_records(&endpoint.idle_extra)
    free_records(&endpoint.lent)
    decref(endpoint.key)
    PyMem_RawFree(endpoint)


# What a store owns is behind pointers, of which the garbage collector must be told, or a pool that its own connections
# refer to would never be freed. It runs when no operation is under way.

cdef traverseproc traverse_attributes = (<PyTypeObject *>Store).tp_traverse


cdef int traverse_records(list_t *records, visitproc visit, void *arg) except -1:
    cdef record_t *record = records.head
    cdef int answer
    while record != NULL:
        answer = visit(record.owner, arg)
        if answer:
            return answer
        record = record.next
    return 0


cdef int traverse_queue(queue_t *queue, visitproc visit, void *arg) except -1:
    cdef ticket_t *ticket = queue.head
    cdef int answer
    while ticket != NULL:
        answer = visit(ticket.owner, arg)
        if answer:
            return answer
        ticket = ticket.next
    return 0


cdef int traverse(PyObject *store, visitproc visit, void *arg) except -1:
    cdef endpoint_t *endpoint
    cdef size_t i
    cdef int answer = traverse_attributes(store, visit, arg)
    if not answer:
        answer = traverse_queue(&(<Store>store).s.closers, visit, arg)
    for i in range(
        <size_t>1 << (<Store>store).s.endpoints.bits if (<Store>store).s.endpoints.buckets != NULL and not answer else 0
    ):
        endpoint = (<Store>store).s.endpoints.buckets[i]
        while endpoint != NULL:
            answer = (
                visit(endpoint.key, arg)
                or traverse_queue(&endpoint.waiters, visit, arg)
                or traverse_records(&endpoint.idle_core, visit, arg)
                or traverse_records(&endpoint.idle_extra, visit, arg)
                or traverse_records(&endpoint.lent, visit, arg)
            )
            if answer:
                return answer
            endpoint = endpoint.bucket_next
    return answer


(<PyTypeObject *>Store).tp_traverse = traverse
