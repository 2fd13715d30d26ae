# The lock of a core, in pieces.
#
# Each endpoint belongs to the stripe that the hash of its key picks. Whoever holds one stripe may change the endpoints
# and records of that stripe, as far as that touches nothing else, and may read everything else. Whoever holds all of
# them may change everything. So two threads that acquire and release idle connections of two endpoints share nothing.
# With a GIL there is one stripe, and its mutex is the GIL: holding it or all is the same, and costs nothing.
#
# Stripes are taken in their order, and nobody who holds one takes more: it lets go first, and looks again.

from libc.stdint cimport uint64_t

from _cpool.lock cimport gcp_mutex, mutex_init, mutex_lock, mutex_unlock
from _cpool.table cimport lent_table_t, slot_of

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define GCP_STRIPE_BITS 5
    /* keeps what two stripes change out of each other's cache lines, which are 64 bytes, or 128 in pairs */
    #define GCP_STRIPE_PADDING 128
    #else
    #define GCP_STRIPE_BITS 0
    #define GCP_STRIPE_PADDING 1
    #endif
    #define GCP_STRIPES (1 << GCP_STRIPE_BITS)

    /* What tells an earlier release from a later one, given a stripe's last. A counter of all would be written by all
       threads with every release, so without a GIL the processor's own one is read. */
    static inline uint64_t gcp_next_sequence(uint64_t last) {
    #if defined(Py_GIL_DISABLED) && (defined(__x86_64__) || defined(__i386__))
        uint64_t ticks = __builtin_ia32_rdtsc();
        return ticks > last ? ticks : last + 1;
    #elif defined(Py_GIL_DISABLED)
        PyTime_t ticks;
        return PyTime_MonotonicRaw(&ticks) == 0 && (uint64_t)ticks > last ? (uint64_t)ticks : last + 1;
    #else
        return last + 1;
    #endif
    }
    """
    enum:
        STRIPE_BITS "GCP_STRIPE_BITS"
        STRIPES "GCP_STRIPES"
        STRIPE_PADDING "GCP_STRIPE_PADDING"
    uint64_t next_sequence "gcp_next_sequence"(uint64_t last) noexcept nogil

cdef struct stripe_t:
    gcp_mutex mutex
    lent_table_t lent      # its acquired connections
    uint64_t sequence      # that of its last release
    Py_ssize_t records     # its connections that are not gone
    char padding[STRIPE_PADDING]

cdef inline size_t stripe_of(Py_hash_t hash) noexcept nogil:
    return slot_of(<uint64_t>hash, STRIPE_BITS) if STRIPES > 1 else 0

cdef inline void stripes_init(stripe_t *stripes) noexcept nogil:
    cdef size_t i
    for i in range(STRIPES):
        mutex_init(&stripes[i].mutex)

cdef inline void hold_all(stripe_t *stripes) noexcept nogil:
    cdef size_t i
    for i in range(STRIPES):
        mutex_lock(&stripes[i].mutex)

cdef inline void release_all(stripe_t *stripes) noexcept nogil:
    cdef size_t i
    for i in range(STRIPES):
        mutex_unlock(&stripes[i].mutex)

cdef inline void hold(stripe_t *stripes, stripe_t *stripe) noexcept nogil:
    # one stripe, or all if it is NULL
    if stripe != NULL:
        mutex_lock(&stripe.mutex)
    else:
        hold_all(stripes)

cdef inline void release(stripe_t *stripes, stripe_t *stripe) noexcept nogil:
    if stripe != NULL:
        mutex_unlock(&stripe.mutex)
    else:
        release_all(stripes)

cdef inline int give_up(stripe_t *stripes, str text) except -1:
    # an operation that is not allowed, and has changed nothing yet
    release_all(stripes)
    raise RuntimeError(text)
