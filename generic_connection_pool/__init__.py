"""A connection pool for anything that is spoken to over a connection, for threads and for asyncio.

The pools are in :mod:`generic_connection_pool.threading` and :mod:`generic_connection_pool.asyncio`, ready-made
connection managers in :mod:`generic_connection_pool.contrib`.
"""

from . import common, exceptions
from ._core import core_implementation
from .common import BaseConnectionPool
from .exceptions import (
    BaseError,
    ConnectionNotAcquiredError,
    ConnectionPoolClosedError,
    ConnectionPoolTimeoutError,
)

__all__ = (
    'BaseConnectionPool',
    'BaseError',
    'ConnectionNotAcquiredError',
    'ConnectionPoolClosedError',
    'ConnectionPoolTimeoutError',
    'common',
    'core_implementation',
    'exceptions',
)
