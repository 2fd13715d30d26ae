"""A bound for what knows no timeout and cannot be interrupted: another thread does it, and is left behind if late."""

import concurrent.futures
import contextlib
import threading
from typing import Callable, TypeVar

__all__ = ('call_within',)

ResultT = TypeVar('ResultT')


def call_within(
    timeout: float, function: Callable[[], ResultT], undo: Callable[[ResultT], object], what: str
) -> ResultT:
    """Call a function in a thread of its own (``gcp-connect``), and return or raise what it does.

    When the time is up, or the caller is interrupted, the thread is left alone. What the function returns after all
    is undone there.

    :param timeout: seconds that it may take; at 0 or less it is not called at all
    :param function: what to call
    :param undo: called with a result that comes too late
    :param what: what is being done, for the error message
    :return: what the function returned
    :raises TimeoutError: it took too long
    """
    arrival: 'concurrent.futures.Future[ResultT]' = concurrent.futures.Future()
    if timeout > 0:
        threading.Thread(target=_deliver, args=(function, undo, arrival), name='gcp-connect', daemon=True).start()
    try:
        return arrival.result(timeout)
    except concurrent.futures.TimeoutError:
        if not arrival.cancel():
            # it came just now, or is the function's own TimeoutError (the same class from Python 3.11 on)
            return arrival.result()
        raise TimeoutError(f'{what} took longer than {timeout} seconds') from None
    except BaseException:
        # an interrupt, or the error of the function itself
        if not arrival.cancel() and arrival.exception() is None:
            undo(arrival.result())
        raise
    finally:
        # an error refers to this frame, and the future to the error
        del arrival


def _deliver(
    function: Callable[[], ResultT],
    undo: Callable[[ResultT], object],
    arrival: 'concurrent.futures.Future[ResultT]',
) -> None:
    """Deliver the outcome, unless nobody is waiting for it any more."""
    try:
        result = function()
    except BaseException as exc:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            arrival.set_exception(exc)
        return
    try:
        arrival.set_result(result)
    except concurrent.futures.InvalidStateError:
        undo(result)
