"""The task that disposes of what is due, so that no user has to."""

import asyncio
import contextvars
import logging
import weakref
from typing import TYPE_CHECKING, Any, Optional

from .._core import Ticket
from .waiter import Waiter

if TYPE_CHECKING:
    from .pool import ConnectionPool

__all__ = ('start_collector',)

logger = logging.getLogger(__name__)

NAME = 'gcp-collector'


def start_collector(pool: 'ConnectionPool[Any, Any]', loop: asyncio.AbstractEventLoop) -> 'asyncio.Task[None]':
    """Start the collector of a pool in an event loop: a task that sleeps until a connection is due.

    It knows the pool by a weak reference, and ends when the pool is closed or gone, or with its loop.
    """
    waiter = Waiter(loop)
    ticket = Ticket(0, waiter.notify)
    pool_ref = weakref.ref(pool, lambda _: waiter.notify())
    # in a context of its own: it outlives its starter's, and whatever that holds
    return contextvars.Context().run(lambda: loop.create_task(_collect(pool_ref, ticket, waiter), name=NAME))


async def _collect(pool_ref: 'weakref.ref[ConnectionPool[Any, Any]]', ticket: Ticket, waiter: Waiter) -> None:
    delay: Optional[float] = 0.0
    while True:
        await waiter.wait(delay)
        pool = pool_ref()
        if pool is None or pool.closed:
            return
        try:
            delay = pool._dispose_all_due(ticket)
        except Exception:
            logger.exception('the collector of a connection pool goes on after an error')
            delay = 1.0
        del pool
