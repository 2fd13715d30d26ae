"""The thread that disposes of what is due, so that no user has to."""

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Optional

from .._core import Ticket

if TYPE_CHECKING:
    from .pool import ConnectionPool

__all__ = ('start_collector',)

logger = logging.getLogger(__name__)

NAME = 'gcp-collector'


def start_collector(pool: 'ConnectionPool[Any, Any]') -> None:
    """Start the collector of a pool: a daemon thread that sleeps until a connection is due.

    It knows the pool by a weak reference, and ends when the pool is closed or gone.
    """
    ticket = Ticket(0)
    pool_ref = weakref.ref(pool, lambda _: ticket.wake())
    threading.Thread(target=_collect, args=(pool_ref, ticket), name=NAME, daemon=True).start()


def _collect(pool_ref: 'weakref.ref[ConnectionPool[Any, Any]]', ticket: Ticket) -> None:
    delay: Optional[float] = 0.0
    while True:
        ticket.wait(delay)
        pool = pool_ref()
        if pool is None or pool.closed or pool._lacks_collector:  # if a hook has forked here, the child starts another
            return
        try:
            delay = pool._dispose_all_due(ticket)
        except BaseException:  # a hook's SystemExit, say: the connection is gone, the collector has others to see to
            logger.exception('the collector of a connection pool goes on after an error')
            delay = 0.0
        del pool
