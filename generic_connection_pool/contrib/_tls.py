"""What the managers of TLS connections share, for threads: the handshake and the goodbye."""

import contextlib
import socket
import ssl

from .._fork import unfinished
from ._sockets import Deadline

__all__ = ('say_goodbye', 'shake_hands')


def shake_hands(
    context: ssl.SSLContext, sock: socket.socket, host: str, where: str, deadline: Deadline
) -> ssl.SSLSocket:
    """Shake hands over a connected socket, which is replaced by the one returned, or closed if that fails.

    :param context: how to secure and to verify
    :param sock: a connected socket
    :param host: the name that the certificate has to bear
    :param where: the endpoint, for the error message
    :param deadline: how long it may take
    :return: a socket that blocks
    :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted
    :raises OSError: the connection was lost, or the time was not enough (``TimeoutError``, which says where)
    """
    try:
        # wrapping moves the descriptor to a new socket and leaves the old one closed
        sock = tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        unfinished.add(tls)
        tls.settimeout(deadline.left())
        tls.do_handshake()
        tls.settimeout(None)
        unfinished.discard(tls)
    except TimeoutError as exc:
        sock.close()
        raise TimeoutError(f'no TLS handshake with {where} in time: {exc}') from exc
    except BaseException:
        sock.close()
        raise
    return tls


def say_goodbye(tls: ssl.SSLSocket) -> None:
    """Say goodbye if that needs no waiting. Only for a connection that no other thread uses."""
    # OSError: it is on its way, or the peer is gone; the peer's own goodbye is not waited for
    with contextlib.suppress(OSError, ValueError):
        tls.settimeout(0.0)
        tls.unwrap()
