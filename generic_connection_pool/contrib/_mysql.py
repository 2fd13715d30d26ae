"""What the drivers that descend from PyMySQL have in common."""

from typing import Any

__all__ = ('forget_unread_result', 'has_unread_result')


def has_unread_result(conn: Any) -> bool:
    """Tell whether a result is not read to its end: of a cursor without buffer (``SSCursor``), or a second one.

    The driver would read it away before the next command, however much it is.

    :param conn: the connection; what does not tell is taken to have none
    """
    result = getattr(conn, '_result', None)
    return bool(getattr(result, 'unbuffered_active', False) or getattr(result, 'has_next', False))


def forget_unread_result(conn: Any) -> None:
    """Have nobody try to read the rest of a result when it is finalized, since its connection is being closed.

    :param conn: the connection
    """
    result = getattr(conn, '_result', None)
    if getattr(result, 'unbuffered_active', False):
        setattr(result, 'unbuffered_active', False)
        setattr(result, 'connection', None)
