"""What an asyncio pool asks of its user: how to open, check and close one connection."""

import abc
from typing import Generic

from .._fork import release_descriptor
from ..common import ConnectionT, EndpointT

__all__ = ('BaseConnectionManager',)


class BaseConnectionManager(abc.ABC, Generic[EndpointT, ConnectionT]):
    """Opens, checks and closes the connections of an asyncio pool.

    The pool bounds the coroutines by the caller's deadline: they are cancelled when it passes.
    They may call back into the pool.
    """

    @abc.abstractmethod
    async def create(self, endpoint: EndpointT) -> ConnectionT:
        """Open a connection.

        :param endpoint: the endpoint to connect to
        :return: the open connection
        :raises Exception: whatever went wrong; it reaches the caller of ``acquire`` and no slot is lost
        """

    @abc.abstractmethod
    async def dispose(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Close a connection. Called exactly once for every connection that :meth:`create` returned.

        :param endpoint: the endpoint of the connection
        :param conn: the connection, possibly a dead one
        :raises Exception: logged by the pool, which forgets the connection all the same
        """

    async def check_aliveness(self, endpoint: EndpointT, conn: ConnectionT) -> bool:
        """Tell whether an idle connection can still be used. Asked on acquire; the default says yes.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :return: ``False`` to have the connection reported to :meth:`on_connection_dead` and replaced
        :raises Exception: reaches the caller of ``acquire``; the connection goes back idle
        """
        return True

    async def on_acquire(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when a connection is about to be handed out. Does nothing by default.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :raises Exception: reaches the caller of ``acquire``; the connection goes back idle without :meth:`on_release`
        """

    async def on_release(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when a connection is given back, unless :meth:`is_reusable` refused it. Does nothing by default.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :raises Exception: reaches the caller of ``release``; the connection goes back idle
        """

    async def on_connection_dead(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when :meth:`check_aliveness` found a connection dead, before it is disposed of.

        :param endpoint: the endpoint of the connection
        :param conn: the dead connection
        :raises Exception: reaches the caller of ``acquire``; the connection is disposed of
        """

    def is_reusable(self, endpoint: EndpointT, conn: ConnectionT, exc: BaseException) -> bool:
        """Tell whether a connection is fit for the next user although its present one failed.

        Asked when the body of ``async with pool.connection(...)`` raised, a cancellation included.
        A plain method: it must answer at once.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the body raised
        :return: ``False`` to have the connection disposed of instead of kept; the default says ``True``
        """
        return True

    def on_fork(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called in a forked child, at once, for each connection of its parent, which goes on using it.

        Whatever the child does must not reach the peer: no farewell, no shutdown. The default releases the child's file
        descriptor in silence if the connection has a ``fileno()`` or a ``get_extra_info('socket')``, closes it if it
        is a :class:`socket.socket`, and does nothing else; the pool keeps the connection from being finalized. The only
        thread is the one that forked; others may have left locks of the connection locked. A plain method:
        no event loop runs.

        :param endpoint: the endpoint of the connection
        :param conn: the connection, whatever its state
        :raises Exception: reported to :data:`sys.unraisablehook`
        """
        release_descriptor(conn)
