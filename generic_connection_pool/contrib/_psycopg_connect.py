"""Connecting with psycopg 3 within a time, in a thread of its own."""

import concurrent.futures
import contextlib
import threading
from typing import Any, Callable, Generator, Optional

import psycopg

from ._psycopg import cut

#: what a thread is connecting for: its attribute ``is_given_up`` is a callable
_here = threading.local()


class Attempt:
    """A connection that is being opened in another thread for one that waits, until it gives up."""

    def __init__(
        self,
        connect: 'Callable[[], psycopg.Connection[Any]]',
        configure: 'Callable[[psycopg.Connection[Any]], None]',
    ):
        """
        :param connect: opens the connection, by :class:`Abandonable`
        :param configure: does what else there is to do with it before it is handed over
        """
        self._connect = connect
        self._configure = configure
        self._arrival: 'concurrent.futures.Future[psycopg.Connection[Any]]' = concurrent.futures.Future()
        # guards the connection, while it is being configured, from being cut and closed at once
        self._lock = threading.Lock()
        self._conn: 'Optional[psycopg.Connection[Any]]' = None

    def outcome(self, timeout: float, endpoint: str) -> 'psycopg.Connection[Any]':
        """Return the connection. What is not there in time is closed.

        :param timeout: seconds to wait for it
        :param endpoint: what to connect to, for the error message
        :raises TimeoutError: the time is up
        :raises Exception: whatever went wrong
        """
        if timeout > 0:
            threading.Thread(target=self._run, name='gcp-connect', daemon=True).start()
        try:
            return self._arrival.result(timeout)
        except concurrent.futures.TimeoutError:
            if not self._give_up():
                # it came just now, or it is the connect's own error
                return self._arrival.result()
            raise TimeoutError(f'connecting to endpoint {endpoint!r} took longer than {timeout:.3g} seconds') from None
        except BaseException:
            # an interrupt, or the error of the connect itself
            if not self._give_up() and self._arrival.exception() is None:
                self._arrival.result().close()
            raise

    def _give_up(self) -> bool:
        """Have nothing delivered any more; ``False`` if something was."""
        if not self._arrival.cancel():
            return False
        with self._lock:
            if self._conn is not None:
                cut(self._conn)
        return True

    def _run(self) -> None:
        """Open the connection and deliver the outcome, unless nobody is waiting for it any more."""
        _here.is_given_up = self._arrival.cancelled
        try:
            conn = self._connect()
            self._finish(conn)
        except BaseException as exc:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self._arrival.set_exception(exc)
            return
        try:
            self._arrival.set_result(conn)
        except concurrent.futures.InvalidStateError:
            conn.close()

    def _finish(self, conn: 'psycopg.Connection[Any]') -> None:
        with self._lock:
            self._conn = conn
        try:
            if not self._arrival.cancelled():
                self._configure(conn)
        except BaseException:
            with self._lock:
                self._conn = None
                conn.close()
            raise
        with self._lock:
            self._conn = None


class Abandonable(psycopg.Connection[Any]):
    """Makes connections of its base class, but stops within a moment when the one it is for has given up.

    psycopg goes on after each step, and if there is nothing to be read after a tenth of a second. Were that to change,
    a connect that is left alone would go on until its ``connect_timeout``.
    """

    @classmethod
    def _connect_gen(cls, *args: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        is_given_up: Callable[[], bool] = getattr(_here, 'is_given_up', lambda: False)
        steps: Generator[Any, Any, Any] = psycopg.Connection._connect_gen(*args, **keywords)
        ready = None
        try:
            while True:
                ready = yield steps.send(ready)
                if is_given_up():
                    raise TimeoutError('nobody waits for the connection any more')
        except StopIteration as end:
            return end.value
        finally:
            # this closes what is half open
            steps.close()
