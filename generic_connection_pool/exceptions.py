"""The exceptions of the library. All derive from :class:`BaseError`."""

__all__ = (
    'BaseError',
    'ConnectionNotAcquiredError',
    'ConnectionPoolClosedError',
    'ConnectionPoolIsFull',
    'ConnectionPoolNotFound',
    'ConnectionPoolTimeoutError',
)


class BaseError(Exception):
    """The base of every exception that the library defines."""


class ConnectionPoolClosedError(BaseError):
    """The pool is closed, or was closed while the caller waited for a connection."""


class ConnectionPoolIsFull(BaseError):
    """A pool has no room for another connection. Kept for compatibility: no pool raises it."""


class ConnectionPoolNotFound(BaseError):
    """A pool knows nothing of an endpoint. Kept for compatibility: no pool raises it."""


class ConnectionNotAcquiredError(BaseError, RuntimeError):
    """The connection given back is not held: it was given back before, or it belongs to another endpoint or pool.

    The pool is left as it was, and no hook of the connection manager has run.
    """


class ConnectionPoolTimeoutError(BaseError, TimeoutError):
    """No connection could be had in time. The message tells the endpoint, the wait and the state of the pool."""
