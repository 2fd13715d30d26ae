"""What error messages and log records show of what users pass: something short, whatever it is."""

import reprlib
from typing import Sequence

from .exceptions import ConnectionNotAcquiredError

__all__ = ('acquired_by', 'not_acquired', 'show', 'show_identity')

#: so many holders of connections are named, the others only counted
MOST_NAMED = 10

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 200
_shortener.maxtuple = _shortener.maxlist = _shortener.maxset = _shortener.maxdict = 20
_shortener.maxlong = 80


def show(value: object) -> str:
    """Return the ``repr`` of a value, shortened if it is long; of one whose ``repr`` fails, its class and address."""
    try:
        return _shortener.repr(value)
    except Exception:  # the error to be reported is another one
        return object.__repr__(value)


def show_identity(value: object) -> str:
    """Return the class and address of a connection or manager, whose ``repr`` may tell more than a log should know."""
    return object.__repr__(value)


def not_acquired(conn: object, endpoint: object) -> ConnectionNotAcquiredError:
    """Return the error for a connection that is given back but not held."""
    return ConnectionNotAcquiredError(
        f'{show_identity(conn)} is not acquired from endpoint {show(endpoint)}: it was given back before, '
        f'or belongs elsewhere'
    )


def acquired_by(names: Sequence[str], own: int, kind: str) -> str:
    """Return what the message of a timed-out acquire says of those who hold what it has waited for.

    :param names: of the holder of each connection
    :param own: how many of the connections are held by the one that has waited
    :param kind: what holds connections: ``'thread'`` or ``'task'``
    """
    if not names:
        return ''
    text = f'; acquired by {", ".join(names[:MOST_NAMED])}'
    if len(names) > MOST_NAMED:
        text += f' and {len(names) - MOST_NAMED} more'
    if own:
        text += f' ({own} by this very {kind}: it may be waiting for itself)'
    return text
