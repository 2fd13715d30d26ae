# What the core locks with, waits with and tells the time by.
#
# With a GIL, the GIL is the mutex: what the core does while it holds the lock is C code that calls nothing which could
# release the GIL, and the compiler checks that (the parts of operations in policy.pyx are nogil functions). Without one, it is a PyMutex. A thread that waits for it detaches
# first, so that it never keeps the garbage collector waiting.

from cpython.ref cimport PyObject

cdef extern from *:
    """
    #include "pythread.h"
    #if defined(__linux__)
    #include <time.h>
    #endif

    #ifdef Py_GIL_DISABLED
    typedef PyMutex gcp_mutex;
    static inline void gcp_mutex_init(gcp_mutex *m) { memset(m, 0, sizeof(*m)); }
    #if defined(__x86_64__) || defined(__i386__)
    #define GCP_PAUSE() __builtin_ia32_pause()
    #else
    #define GCP_PAUSE() ((void)0)
    #endif
    /* What is done under the lock takes some tens of nanoseconds, so that it is soon free; PyMutex_Lock would yield the
       processor at once, and then park. */
    static inline void gcp_mutex_lock(gcp_mutex *m) {
        for (int i = 0; i < 100; i++) {
            uint8_t unlocked = 0;
            if (_Py_atomic_load_uint8_relaxed(&m->_bits) == 0
                    && _Py_atomic_compare_exchange_uint8(&m->_bits, &unlocked, 1))
                return;
            GCP_PAUSE();
        }
        PyMutex_Lock(m);
    }
    static inline void gcp_mutex_unlock(gcp_mutex *m) { PyMutex_Unlock(m); }
    #else
    typedef char gcp_mutex;
    static inline void gcp_mutex_init(gcp_mutex *m) { *m = 0; }
    static inline void gcp_mutex_lock(gcp_mutex *m) { (void)m; }
    static inline void gcp_mutex_unlock(gcp_mutex *m) { (void)m; }
    #endif

    /* the same clock as time.monotonic() */
    static inline double gcp_clock(void) {
    #if PY_VERSION_HEX >= 0x030D0000
        PyTime_t t;
        if (PyTime_MonotonicRaw(&t) < 0) return 0.0;
        return PyTime_AsSecondsDouble(t);
    #else
        return _PyTime_AsSecondsDouble(_PyTime_GetMonotonicClock());
    #endif
    }

    /* The same clock as of the last timer tick, at a quarter of the cost: never ahead of gcp_clock(). */
    static inline double gcp_clock_floor(void) {
    #if defined(__linux__) && defined(CLOCK_MONOTONIC_COARSE)
        struct timespec t;
        if (clock_gettime(CLOCK_MONOTONIC_COARSE, &t) == 0)
            return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    #endif
        return gcp_clock();
    }
    """
    ctypedef struct gcp_mutex:
        pass
    void mutex_init "gcp_mutex_init"(gcp_mutex *) noexcept nogil
    void mutex_lock "gcp_mutex_lock"(gcp_mutex *) noexcept nogil
    void mutex_unlock "gcp_mutex_unlock"(gcp_mutex *) noexcept nogil
    double gcp_clock() noexcept nogil
    double gcp_clock_floor() noexcept nogil

cdef extern from "Python.h":
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyThread_type_lock PyThread_allocate_lock() noexcept nogil
    void PyThread_free_lock(PyThread_type_lock) noexcept nogil
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int intr_flag) noexcept nogil
    void PyThread_release_lock(PyThread_type_lock) noexcept nogil
    unsigned long PyThread_get_thread_ident() noexcept nogil
    bint PyFloat_CheckExact(object)
    double PyFloat_AS_DOUBLE(object)
    bint PyLong_CheckExact(object)
    # reference counting on raw pointers; the thread is attached wherever these are used
    void incref "Py_INCREF"(PyObject *) noexcept nogil
    void decref "Py_DECREF"(PyObject *) noexcept
    # the same, where it cannot be the last reference
    void decref_alive "Py_DECREF"(PyObject *) noexcept nogil


# The time, while a simulation of the tests keeps it; else negative.
cdef double virtual_time


cdef inline double clock_now() noexcept nogil:
    return gcp_clock() if virtual_time < 0.0 else virtual_time


cdef inline double clock_floor() noexcept nogil:
    return gcp_clock_floor() if virtual_time < 0.0 else virtual_time


cdef inline bint is_plain_timeout(object timeout) noexcept:
    # of those that are no mistake, the usual ones: there is no need to look at these closely
    return (PyFloat_CheckExact(timeout) and PyFloat_AS_DOUBLE(timeout) >= 0.0) or PyLong_CheckExact(timeout)


cdef class Parker:
    cdef PyThread_type_lock place
    # the place is open, or about to be: guarded by mutex
    cdef bint woken
    # it was made during a simulation of the tests, which decides who sleeps here
    cdef bint simulated
    cdef gcp_mutex mutex

    cpdef bint park(self, timeout=*) except -1
    cpdef void unpark(self) noexcept
