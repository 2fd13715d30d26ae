# cython: nonecheck=True
"""The hot path of the asyncio pool: acquiring what is idle and releasing, with no hook overridden.

What can be done at once is done without a coroutine, future or task: the awaitables here are coroutines in all that
matters (they can be awaited, wrapped in a task, cancelled), but run C code until something really has to be waited for.
"""

import warnings
from asyncio import _get_running_loop
from types import GenericAlias

cimport cython
from cpython.object cimport PyTypeObject
from cpython.ref cimport PyObject

from _cpool.core cimport R_DISPOSE, R_DUE, R_REFUSED
from _cpool.holders cimport holder_now
from _cpool.lock cimport clock_now, decref, incref, is_plain_timeout

__all__ = ('COLLECT', 'DISPOSE', 'DONE', 'HOOKS', 'AsyncCall', 'AsyncLease', 'AsyncPool')

cdef enum:
    DO_NOTHING = 0
    DO_HOOKS = 1
    DO_DISPOSE = 2
    DO_COLLECT = 3

# what a release has left to be done: nothing,
DONE = DO_NOTHING
# to ask the hooks, and to end the release,
HOOKS = DO_HOOKS
# to dispose of the connection (and of others that are due),
DISPOSE = DO_DISPOSE
# to dispose of what is due
COLLECT = DO_COLLECT

cdef object running_loop = _get_running_loop

cdef str LOOP_NOTE = '__asyncio_running_event_loop__'

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()
    PyObject *PyDict_GetItemWithError(PyObject *dictionary, PyObject *key) except? NULL

cdef extern from *:
    """
    /* The StopIteration that carries a result, for Pythons whose await has no use for am_send (3.12 and 3.13): one and
       the same, as long as nobody keeps it. */
    #if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
    static PyObject *gcp_stop = NULL;
    #endif

    static void gcp_forget(void) {
    #if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
        if (gcp_stop != NULL && Py_REFCNT(gcp_stop) == 1) {
            PyObject *former = ((PyStopIterationObject *)gcp_stop)->value;
            ((PyStopIterationObject *)gcp_stop)->value = Py_NewRef(Py_None);
            Py_XDECREF(former);
        }
    #endif
    }

    static void gcp_raise_stop(PyObject *value) {
        PyObject *stop;
    #if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
        PyBaseExceptionObject *kept = (PyBaseExceptionObject *)gcp_stop;
        if (kept != NULL && Py_REFCNT(kept) == 1 && kept->traceback == NULL && kept->context == NULL) {
            PyObject *former = ((PyStopIterationObject *)gcp_stop)->value;
            ((PyStopIterationObject *)gcp_stop)->value = Py_NewRef(value);
            PyErr_SetRaisedException(Py_NewRef(gcp_stop));
            Py_XDECREF(former);
            return;
        }
        stop = PyObject_CallNoArgs(PyExc_StopIteration);
        if (stop == NULL) return;
        Py_SETREF(((PyStopIterationObject *)stop)->value, Py_NewRef(value));
        Py_XSETREF(gcp_stop, Py_NewRef(stop));
        PyErr_SetRaisedException(stop);
    #else
        stop = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (stop == NULL) return;
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    #endif
    }

    static sendfunc gcp_send = NULL;

    /* tp_iternext: what such a Python calls; NULL without an exception is the result None */
    static PyObject *gcp_next(PyObject *self) {
        PyObject *result = NULL;
        if (gcp_send(self, Py_None, &result) == PYGEN_RETURN) {
            if (result != Py_None) gcp_raise_stop(result);
            Py_CLEAR(result);
        }
        return result;
    }

    static void gcp_set_slots(PyTypeObject *type, sendfunc send) {
        gcp_send = send;
        type->tp_as_async->am_send = send;
        type->tp_iternext = gcp_next;
        PyType_Modified(type);
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    PySendResult PyIter_Send(PyObject *iterator, PyObject *value, PyObject **result) except PYGEN_ERROR
    void forget_result "gcp_forget"()
    void set_slots "gcp_set_slots"(PyTypeObject *type, sendfunc send)


cdef inline PyObject *noted_loop() except? NULL:
    # borrowed from the thread's own dictionary
    cdef PyObject *notes = PyThreadState_GetDict()
    return NULL if notes == NULL else PyDict_GetItemWithError(notes, <PyObject *>LOOP_NOTE)


@cython.freelist(32)  # which its subclasses of the same size use, too
cdef class Operation:
    """An acquire or a release that is to be awaited. It is begun when it is awaited, as a coroutine is."""

    @property
    def __name__(self):
        """What a task shows of it."""
        return 'ConnectionPool.acquire' if self.acquires else 'ConnectionPool.release'

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on until there is something to be waited for.

        :param value: what the event loop has to say, ``None`` as a rule
        :return: what is to be waited for
        :raises StopIteration: at the end, with the result
        """
        cdef bint finished = False
        if self.rest is None:
            answer = self.start(&finished)
            if finished:
                raise StopIteration(answer)
        self.enter_rest()
        try:
            return self.rest.send(value)
        except StopIteration as stop:
            answer = self.conclude(stop.value)
        except BaseException:
            self.rest = None
            raise
        finally:
            self.running = False
        raise StopIteration(answer)

    def throw(self, typ, val=None, tb=None):
        """Raise an exception where the operation waits.

        :param typ: the exception, or its type
        :param val: the exception, if ``typ`` is its type
        :param tb: a traceback to be attached
        :return: what is to be waited for next
        :raises StopIteration: if that ends it with a result
        """
        if self.rest is None:
            self.todo = A_NOTHING
            if val is None:
                val = typ() if isinstance(typ, type) else typ
            if tb is not None:
                val = val.with_traceback(tb)
            raise val
        self.enter_rest()
        try:
            return self.rest.throw(typ if val is None else val)
        except StopIteration as stop:
            answer = self.conclude(stop.value)
        except BaseException:
            self.rest = None
            raise
        finally:
            self.running = False
        raise StopIteration(answer)

    def close(self):
        """End the operation where it waits; what it holds is given back."""
        self.todo = A_NOTHING
        if self.rest is not None:
            self.rest.close()
            self.rest = None

    cdef int enter_rest(self) except -1:
        # the coroutine is about to run; whatever it runs must not run it, nor take it away
        if self.running:
            raise ValueError('coroutine already executing')
        self.running = True
        return 0

    cdef object start(self, bint *finished):
        # do what can be done at once, or prepare the coroutine that does it
        cdef int todo = self.todo
        cdef Record record
        self.todo = A_NOTHING
        if todo == A_ENTER or todo == A_ACQUIRE:
            if self.timeout is not None and not is_plain_timeout(self.timeout):
                self.pool._check_timeout(self.timeout)
            record = self.pool.take(self.endpoint)
            if record is None:
                self.rest = self.pool._acquire(self.endpoint, self.timeout)
                return None
            finished[0] = True
            return self.conclude(record) if todo == A_ENTER else record.conn
        if todo == A_EXIT:
            record = self.record
            self.record = None
        elif todo == A_RELEASE:
            record = self.pool.core.find(self.subject, self.endpoint)
            if record is None:
                finished[0] = True
                self.pool.refuse(self.subject, self.endpoint)
                return None
            self.loan = record.c.uses
            self.subject = None
        else:
            raise RuntimeError('cannot reuse already awaited coroutine')
        forget_result()
        todo = self.pool.give_in(record, self.loan, self.subject)
        if todo == DO_NOTHING:
            finished[0] = True
        else:
            self.rest = self.pool._finish(record, self.subject, todo)
        self.subject = None
        return None

    cdef object conclude(self, object value):
        # what the coroutine returned, or the record taken, as the result of the operation
        self.rest = None
        return (<Record>value).conn if isinstance(value, Record) else value


@cython.final
cdef class AsyncCall(Operation):
    """What :meth:`AsyncPool.acquire` and :meth:`AsyncPool.release` return."""

    def __dealloc__(self):
        if self.todo != A_NOTHING:
            name = 'acquire' if self.acquires else 'release'
            warnings.warn(f"coroutine 'ConnectionPool.{name}' was never awaited", RuntimeWarning, stacklevel=1)


@cython.final
cdef class AsyncLease(Operation):
    """The context manager that :meth:`AsyncPool.connection` returns: holds one connection for its block.

    It is its own awaitable, for entering and for leaving.
    """

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __init__(self, AsyncPool pool not None, endpoint, timeout):
        if self.pool is not None:
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        self.pool = pool
        self.endpoint = endpoint
        self.timeout = timeout

    def __aenter__(self):
        if self.record is not None or self.rest is not None or self.todo != A_NOTHING:
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        self.acquires = True
        self.todo = A_ENTER
        return self

    def __aexit__(self, exc_type, exc, traceback):
        if self.record is None:
            raise RuntimeError('this context manager has not been entered')
        self.subject = exc
        self.rest = None
        self.acquires = False
        self.todo = A_EXIT
        return self

    cdef object conclude(self, object value):
        self.rest = None
        if not isinstance(value, Record):
            return value
        self.record = <Record>value
        self.loan = self.record.c.uses
        return self.record.conn


cdef PySendResult send_operation(PyObject *self, PyObject *value, PyObject **result) except PYGEN_ERROR:
    # am_send: what send() does, without StopIteration
    cdef Operation operation = <Operation>self
    cdef bint finished = False
    cdef PySendResult state
    cdef PyObject *answer = NULL
    result[0] = NULL
    if operation.rest is None:
        outcome = operation.start(&finished)
        if finished:
            result[0] = <PyObject *>outcome
            incref(result[0])
            return PYGEN_RETURN
    operation.enter_rest()
    try:
        state = PyIter_Send(<PyObject *>operation.rest, value, &answer)
    except BaseException:
        operation.rest = None
        raise
    finally:
        operation.running = False
    if state == PYGEN_RETURN:
        outcome = <object>answer
        decref(answer)
        outcome = operation.conclude(outcome)
        result[0] = <PyObject *>outcome
        incref(result[0])
    else:
        result[0] = answer
    return state


# Cython has no special method for am_send, without which each result takes a StopIteration.
set_slots(<PyTypeObject *>AsyncCall, send_operation)
set_slots(<PyTypeObject *>AsyncLease, send_operation)


cdef class AsyncPool:
    """What an asyncio pool does while nothing has to be awaited. The facade adds ``_acquire``,
    ``_finish`` and ``_is_inherited``."""

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def _setup(
        self, Core core not None, bint plain_acquire, bint plain_release, bint plain_failure, bint collects
    ):
        """Prepare the pool.

        :param core: its core
        :param plain_acquire: no hook of acquiring is overridden
        :param plain_release: no hook of releasing is overridden
        :param plain_failure: nor is the one asked when a block has failed
        :param collects: a release is to dispose of what is due
        """
        self.adopt(core)
        self._plain_acquire = plain_acquire
        self._plain_release = plain_release
        self._plain_failure = plain_failure
        self._collects = collects

    def _renew(self, Core core not None, tickets):
        """For a forked child: go on with another core, and with whatever event loop uses the pool next. What is being
        acquired comes to nothing.

        :param core: an empty core
        :param tickets: those of the acquires that are under way
        """
        self.adopt(core)
        self.loop = None
        self.marker = None
        for ticket in tickets:
            ticket.revoke()

    cdef int adopt(self, Core core) except -1:
        # what the former core has lent must never come back to another one
        if self.core is not None and self.core is not core:
            self.core.disown()
        self.core = core
        return 0

    def connection(self, endpoint, timeout=None):
        """Hold a connection for an ``async with`` block.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: an asynchronous context manager for one block; ``as`` gives the connection
        :raises ConnectionPoolTimeoutError: on entering, if no connection could be had in time
        :raises ConnectionPoolClosedError: on entering, if the pool is closed
        """
        cdef AsyncLease lease = AsyncLease.__new__(AsyncLease)
        lease.pool = self
        lease.endpoint = endpoint
        lease.timeout = timeout
        return lease

    def acquire(self, endpoint, timeout=None):
        """Acquire a connection; :meth:`release` gives it back.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: the connection
        :raises ConnectionPoolTimeoutError: if no connection could be had in time
        :raises ConnectionPoolClosedError: if the pool is closed
        """
        cdef AsyncCall call = AsyncCall.__new__(AsyncCall)
        call.pool = self
        call.endpoint = endpoint
        call.timeout = timeout
        call.acquires = True
        call.todo = A_ACQUIRE
        return call

    def release(self, conn, endpoint):
        """Give a connection back.

        :param conn: the connection (this very object or, if that is not acquired, an equal one)
        :param endpoint: its endpoint
        :raises ConnectionNotAcquiredError: if the endpoint has not lent it, or not any more
        """
        cdef AsyncCall call = AsyncCall.__new__(AsyncCall)
        call.pool = self
        call.endpoint = endpoint
        call.subject = conn
        call.todo = A_RELEASE
        return call

    @property
    def _loop(self):
        """The event loop that the pool's connections belong to."""
        return self.loop

    @_loop.setter
    def _loop(self, loop):
        cdef PyObject *noted = noted_loop()
        self.loop = loop
        self.marker = None if noted == NULL else <object>noted

    cdef bint in_loop(self) except -1:
        # Whether it is the pool's loop that runs. Asking asyncio costs a system call before Python 3.12, so what is
        # asked is whether asyncio has noted another one since.
        if self.marker is not None:
            return noted_loop() == <PyObject *>self.marker
        return self.loop is not None and running_loop() is self.loop

    cdef Record take(self, object endpoint):
        # lend an idle connection, if there is one and no hook wants to be asked
        if self._plain_acquire and self.in_loop():
            return self.core.lend_idle(endpoint, holder_now())
        return None

    cdef int give_in(self, Record record, uint64_t loan, object exc) except -1:
        # release a connection as far as nothing has to be awaited; what is left to be done
        cdef int answer
        if self._plain_release and (exc is None or self._plain_failure):
            answer = self.core.restore_now(record, loan)
            if answer & R_REFUSED:
                self.refuse(record.conn, record.key)
                return DO_NOTHING
            if answer & R_DISPOSE:
                return DO_DISPOSE
            return DO_COLLECT if answer & R_DUE and self._collects else DO_NOTHING
        if self.core.take_back(record, loan):
            return DO_HOOKS
        self.refuse(record.conn, record.key)
        return DO_NOTHING

    def _give_back(self, Record record not None):
        """End the release of a connection that is fit for others. Returns what is left to be done."""
        cdef double now = clock_now()
        if not self.core.give_back(record, now):
            return DO_DISPOSE
        return DO_COLLECT if self._collects and self.core.due(now) else DO_NOTHING

    cdef int refuse(self, object conn, object endpoint) except -1:
        if not self.core.forced and not self._is_inherited(conn):
            # the package imports this module
            from generic_connection_pool._messages import not_acquired

            raise not_acquired(conn, endpoint)
        return 0
