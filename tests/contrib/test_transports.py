"""What goes wrong beneath the connections of ``http.client`` and ``smtplib`` before there is one."""

import socket
import ssl
from typing import Any, Callable, Iterator, List, NoReturn, Type

import pytest

from generic_connection_pool.contrib.http import HttpConnectionManager
from generic_connection_pool.contrib.smtp import SmtpConnectionManager, SmtpServer

Create = Callable[[int, ssl.SSLContext], Any]


def create_http(port: int, context: ssl.SSLContext) -> Any:
    return HttpConnectionManager(context).create(('https', '127.0.0.1', port), 10)


def create_smtp(port: int, context: ssl.SSLContext) -> Any:
    return SmtpConnectionManager({'main': SmtpServer('127.0.0.1', port, 'tls')}, context).create('main', 10)


@pytest.fixture
def port() -> Iterator[int]:
    """One at which connections are accepted, by the system and nobody else."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize('create', [create_http, create_smtp])
@pytest.mark.parametrize('error', [OSError(22, 'the peer has reset it'), KeyboardInterrupt()])
def test_a_socket_whose_options_cannot_be_set_is_closed(
    port: int, create: Create, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: List[socket.socket] = []

    def fail(sock: socket.socket, *args: Any) -> NoReturn:
        opened.append(sock)
        raise error

    monkeypatch.setattr(socket.socket, 'setsockopt', fail)
    with pytest.raises(type(error)):
        create(port, ssl.create_default_context())
    sock, = opened
    assert sock.fileno() == -1


class ContextOfTheSystem(ssl.SSLContext):
    """Has somebody else than OpenSSL shake hands and judge certificates, whose errors have no number."""

    error: OSError

    def wrap_socket(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self.error


@pytest.mark.parametrize('create', [create_http, create_smtp])
@pytest.mark.parametrize('kind', [OSError, ssl.SSLError, ssl.SSLCertVerificationError])
def test_an_error_without_a_number_names_the_server_all_the_same(
    port: int, create: Create, kind: Type[OSError]
) -> None:
    context = ContextOfTheSystem(ssl.PROTOCOL_TLS_CLIENT)
    context.error = kind('it is not to be trusted')
    with pytest.raises(kind) as caught:
        create(port, context)
    assert caught.value is context.error
    said = str(caught.value)
    assert said == f'no TLS handshake with 127.0.0.1:{port}: it is not to be trusted'
    assert caught.value.args == (said,)
