"""What the core locks with, waits with and tells the time by."""

from cpython.exc cimport PyErr_CheckSignals

__all__ = ('Parker', 'ReentryError', 'monotonic')

# The longest that one call of the platform's wait lasts, in seconds. A signal that arrives between the look for signals
# and the wait does not interrupt the wait: it is served that much later at the most.
cdef double LONGEST_WAIT = 1.0

# For the simulation of the tests only, which decides who runs and what time it is: its park(parker, timeout) and
# unpark(parker) take the place of those of a Parker made meanwhile, and all clocks tell what _set_virtual_time() was told.
cdef object stage = None
virtual_time = -1.0


class ReentryError(RuntimeError):
    """Raised by the pure-Python core only: the compiled one cannot be interrupted inside an operation."""


def monotonic():
    """The time in seconds, of the same clock as :func:`time.monotonic`."""
    return clock_now()


def _set_stage(actors):
    global stage
    stage = actors


def _set_virtual_time(double now):
    global virtual_time
    virtual_time = now


cdef class Parker:
    """A place for one thread to sleep until it is woken. A wake-up before the sleep is not lost."""

    def __cinit__(self):
        mutex_init(&self.mutex)
        self.simulated = stage is not None
        self.place = PyThread_allocate_lock()
        if self.place == NULL:
            raise MemoryError('no lock could be allocated')
        PyThread_acquire_lock_timed(self.place, 0, 0)

    def __dealloc__(self):
        if self.place != NULL:
            if not self.woken:
                PyThread_release_lock(self.place)
            PyThread_free_lock(self.place)

    cpdef bint park(self, timeout=None) except -1:
        """Sleep until :meth:`unpark`; signals are served meanwhile.

        :param timeout: seconds to sleep at the most (negative counts as 0), ``None`` for no bound
        :return: whether it was woken
        """
        cdef double deadline = 0.0, left = LONGEST_WAIT
        cdef bint bounded = timeout is not None
        cdef PyLockStatus status
        cdef long long microseconds
        if self.simulated and stage is not None:
            return stage.park(self, timeout)
        if bounded:
            left = timeout
            deadline = clock_now() + left
        while True:
            left = min(max(left, 0.0), LONGEST_WAIT)
            # rounded up: waking up early would mean to spin
            microseconds = <long long>(left * 1e6 + 0.999)
            PyErr_CheckSignals()
            with nogil:
                status = PyThread_acquire_lock_timed(self.place, microseconds, 1)
            if status == PY_LOCK_ACQUIRED:
                mutex_lock(&self.mutex)
                self.woken = False
                mutex_unlock(&self.mutex)
                return True
            left = LONGEST_WAIT
            if bounded:
                left = deadline - clock_now()
                if left <= 0.0 and status == PY_LOCK_FAILURE:
                    return False

    cpdef void unpark(self) noexcept:
        """Wake the thread; several wake-ups before it sleeps are one."""
        if self.simulated and stage is not None:
            stage.unpark(self)
            return
        mutex_lock(&self.mutex)
        if not self.woken:
            self.woken = True
            PyThread_release_lock(self.place)
        mutex_unlock(&self.mutex)
