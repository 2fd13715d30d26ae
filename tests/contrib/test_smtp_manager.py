"""What the manager of SMTP sessions does to open one, against a real server and one that follows a script."""

import base64
import os
import smtplib
import ssl
import threading
import time
import traceback
from typing import Any, Callable, Iterator, List

import pytest

pytest.importorskip('aiosmtpd', exc_type=ImportError)

from support.certificates import Certificates  # noqa: E402
from support.forking import in_child, sockets_of  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402
from support.servers_smtp import PASSWORD, USER, mail_server, scripted_server  # noqa: E402

from generic_connection_pool._fork import unfinished  # noqa: E402
from generic_connection_pool.contrib.smtp import SmtpConnection, SmtpConnectionManager, SmtpServer  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

SmtpPool = ConnectionPool[str, SmtpConnection]
NewPool = Callable[..., SmtpPool]


@pytest.fixture
def pool_of(certificates: Certificates) -> Iterator[NewPool]:
    """Makes pools that lead to one server on loopback."""
    pools: List[SmtpPool] = []

    def new(port: int, security: str = 'plain', **parameters: Any) -> SmtpPool:
        server = SmtpServer('127.0.0.1', port, security, **parameters)
        pools.append(ConnectionPool(SmtpConnectionManager({'main': server}, certificates.client())))
        return pools[-1]

    yield new
    for pool in pools:
        pool.close(timeout=5)


# -- parameters


@pytest.mark.parametrize('security, port', [('starttls', 587), ('tls', 465), ('plain', 25)])
def test_each_kind_of_security_has_its_port(security: str, port: int) -> None:
    assert SmtpServer('mail.example.org', security=security).port == port


def test_security_is_starttls_by_default() -> None:
    assert SmtpServer('mail.example.org').security == 'starttls'


@pytest.mark.parametrize('parameters, error, message', [
    ({'security': 'ssl'}, ValueError, "security must be 'starttls', 'tls' or 'plain', not 'ssl'"),
    ({'host': ''}, ValueError, 'a host must be a name or an address'),
    ({'host': 'user:pass-word@example.org'}, ValueError, 'a host must be a name or an address'),
    ({'host': None}, TypeError, 'a host must be a string, not a NoneType'),
    ({'port': 0}, ValueError, 'a port must be from 1 to 65535, not 0'),
    ({'port': '25'}, TypeError, 'a port must be a whole number, not a str'),
    ({'credentials': 'pass-word'}, TypeError, 'both strings, or return that; not this str'),
    ({'credentials': ('user', b'pass-word')}, TypeError, 'both strings, or return that; not this tuple'),
    ({'credentials': ('user', 'pass-word', '')}, TypeError, 'both strings, or return that; not this tuple'),
    ({'local_hostname': b'me'}, TypeError, 'local_hostname must be a string, not a bytes'),
    ({'local_hostname': 'me\r\nRSET'}, ValueError, 'local_hostname must be a name in ASCII'),
])
def test_a_bad_server_is_refused_and_no_secret_told(parameters: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as refused:
        SmtpServer(**{'host': 'mail.example.org', **parameters})
    assert 'pass-word' not in str(refused.value)


@pytest.mark.parametrize('servers, parameters, error, message', [
    (['main'], {}, TypeError, 'servers must be a mapping of SmtpServer by endpoint, not a list'),
    ({'main': {'password': 'pass-word'}}, {}, TypeError, r"servers\['main'\] must be an SmtpServer, not a dict"),
    ({}, {'ssl_context': 1}, TypeError, 'ssl_context must be an ssl.SSLContext or None, not 1'),
    ({}, {'io_timeout': -1}, ValueError, 'io_timeout must be more than 0 seconds and finite, or None, not -1'),
    ({}, {'patience': 0}, ValueError, 'patience must be more than 0 seconds'),
    ({}, {'patience': None}, TypeError, 'patience must be a number of seconds, not None'),
])
def test_a_bad_parameter_is_refused_and_no_secret_told(
    servers: Any, parameters: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        SmtpConnectionManager(servers, **parameters)
    assert 'pass-word' not in str(refused.value)


def test_no_repr_tells_a_password() -> None:
    server = SmtpServer('mail.example.org', credentials=('user', 'pass-word'))
    assert 'pass-word' not in repr(server) + repr(SmtpConnectionManager({'main': server}))


def test_an_unknown_endpoint_is_told_from_those_that_are_known() -> None:
    servers = {'main': SmtpServer('mail.example.org', credentials=('user', 'pass-word'))}
    with pytest.raises(KeyError, match="unknown endpoint 'other'; known are: 'main'") as unknown:
        SmtpConnectionManager(servers).create('other')
    assert 'pass-word' not in str(unknown.value)


# -- greeting


def test_a_session_is_one_of_smtplib_and_has_no_timeout(pool_of: NewPool) -> None:
    with mail_server() as server:
        pool = pool_of(server.port)
        with pool.connection('main') as conn:
            assert isinstance(conn, smtplib.SMTP)
            assert conn.sock.gettimeout() is None
            assert conn.does_esmtp
            # no name server was asked for it
            assert conn.local_hostname == '[127.0.0.1]'
        pool.close()


def test_a_local_name_is_told_to_the_server(pool_of: NewPool) -> None:
    with scripted_server() as server:
        pool = pool_of(server.port, local_hostname='me.example.org')
        with pool.connection('main'):
            pass
        pool.close()
        assert server.lines == ['ehlo me.example.org', 'QUIT']


def test_a_server_that_knows_no_ehlo_is_greeted_with_helo(pool_of: NewPool) -> None:
    with scripted_server(EHLO=b'500 what?\r\n') as server:
        pool = pool_of(server.port)
        with pool.connection('main') as conn:
            assert not conn.does_esmtp
        pool.close()
        assert server.lines == ['ehlo [127.0.0.1]', 'helo [127.0.0.1]', 'QUIT']


@pytest.mark.parametrize('greeting, answers, error, message', [
    (b'421 too busy\r\n', {}, smtplib.SMTPConnectError, 'too busy'),
    (b'554-no\r\n554 service\r\n', {}, smtplib.SMTPConnectError, 'no\\\\nservice'),
    (b'nonsense\r\n', {}, smtplib.SMTPConnectError, ''),
    (b'220 hello\r\n', {'EHLO': b'500 no\r\n', 'HELO': b'500 never\r\n'}, smtplib.SMTPHeloError, 'never'),
    (b'220 hello\r\n', {'EHLO': b'250 ok' + b'x' * 10000}, smtplib.SMTPResponseException, 'Line too long'),
])
def test_a_server_that_does_not_let_us_in_is_named_along_with_what_it_says(
    pool_of: NewPool, greeting: bytes, answers: Any, error: Any, message: str
) -> None:
    with scripted_server(greeting, **answers) as server:
        pool = pool_of(server.port)
        before = open_descriptors()
        with pytest.raises(error, match=rf"endpoint 'main' \(127.0.0.1:{server.port}\): .*{message}"):
            pool.acquire('main', timeout=5)
        assert pool.get_size() == 0
        eventually(lambda: open_descriptors() <= before)


# -- securing


def test_a_server_without_starttls_is_refused_and_no_password_sent(pool_of: NewPool) -> None:
    with scripted_server(EHLO=b'250-hello\r\n250 AUTH PLAIN\r\n') as server:
        pool = pool_of(server.port, 'starttls', credentials=(USER, PASSWORD))
        with pytest.raises(smtplib.SMTPNotSupportedError, match="endpoint 'main' .*does not offer STARTTLS"):
            pool.acquire('main', timeout=5)
        assert server.lines == ['ehlo [127.0.0.1]']


def test_a_server_that_refuses_starttls_is_named(pool_of: NewPool) -> None:
    with scripted_server(EHLO=b'250-hello\r\n250 STARTTLS\r\n', STARTTLS=b'454 not now\r\n') as server:
        pool = pool_of(server.port, 'starttls')
        with pytest.raises(smtplib.SMTPResponseException, match="endpoint 'main' .*not now"):
            pool.acquire('main', timeout=5)


def test_what_was_slipped_in_before_the_handshake_is_noticed(pool_of: NewPool) -> None:
    answers = {'EHLO': b'250-hello\r\n250 STARTTLS\r\n', 'STARTTLS': b'220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n'}
    with scripted_server(**answers) as server:
        pool = pool_of(server.port, 'starttls')
        with pytest.raises(smtplib.SMTPException, match="endpoint 'main' .*more than the answer to STARTTLS"):
            pool.acquire('main', timeout=5)


@pytest.mark.parametrize('security', ['starttls', 'tls'])
def test_servers_are_verified_by_default(certificates: Certificates, security: str) -> None:
    with mail_server(certificates.server(), security) as server:
        before = open_descriptors()
        manager = SmtpConnectionManager({'main': SmtpServer('127.0.0.1', server.port, security)})
        with pytest.raises(ssl.SSLCertVerificationError, match=f'127.0.0.1:{server.port}: .*verify failed'):
            manager.create('main', timeout=5)
        eventually(lambda: open_descriptors() <= before)


@pytest.mark.parametrize('security', ['starttls', 'tls'])
def test_a_server_with_a_certificate_for_another_name_is_refused(
    pool_of: NewPool, certificates: Certificates, security: str
) -> None:
    with mail_server(certificates.server('mail.example.org'), security) as server:
        pool = pool_of(server.port, security)
        with pytest.raises(ssl.SSLCertVerificationError, match=f'127.0.0.1:{server.port}: .*mismatch'):
            pool.acquire('main', timeout=5)
        assert pool.get_size() == 0


@pytest.mark.parametrize('security', ['starttls', 'tls'])
def test_what_is_sent_is_encrypted(pool_of: NewPool, certificates: Certificates, security: str) -> None:
    with mail_server(certificates.server(), security, log_in=True) as server:
        pool = pool_of(server.port, security, credentials=(USER, PASSWORD))
        with pool.connection('main') as conn:
            assert isinstance(conn.sock, ssl.SSLSocket)
            assert conn.sock.version() is not None
        pool.close()


# -- logging in


def test_credentials_are_asked_for_each_time_a_connection_is_made(pool_of: NewPool, certificates: Certificates) -> None:
    asked: List[str] = []
    passwords = ['wrong', PASSWORD]

    def credentials(endpoint: str) -> Any:
        asked.append(endpoint)
        return USER, passwords[len(asked) - 1]

    with mail_server(certificates.server(), 'tls', log_in=True) as server:
        pool = pool_of(server.port, 'tls', credentials=credentials)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            pool.acquire('main', timeout=5)
        for _ in range(3):
            with pool.connection('main', timeout=5) as conn:
                assert conn.verify('a@example.org')[0] == 252
        pool.close()
    assert asked == ['main', 'main']


def test_what_returns_no_credentials_is_refused_before_anything_is_opened(pool_of: NewPool) -> None:
    with scripted_server() as server:
        pool = pool_of(server.port, credentials=lambda endpoint: f'pass-word of {endpoint}')
        with pytest.raises(TypeError, match='both strings, or return that; not this str') as refused:
            pool.acquire('main', timeout=5)
        assert 'pass-word' not in str(refused.value)
        assert server.accepted == 0


def test_wrong_credentials_are_an_error_of_smtplib_that_names_the_endpoint_and_tells_no_password(
    pool_of: NewPool, certificates: Certificates
) -> None:
    with mail_server(certificates.server(), 'starttls', log_in=True) as server:
        pool = pool_of(server.port, 'starttls', credentials=(USER, 'not-the-word'))
        before = open_descriptors()
        with pytest.raises(smtplib.SMTPAuthenticationError, match="endpoint 'main' .*[Aa]uthentication") as refused:
            pool.acquire('main', timeout=5)
        assert refused.value.smtp_code == 535
        assert pool.get_size() == 0
        eventually(lambda: open_descriptors() <= before)


@pytest.mark.parametrize('form', [
    'not-the-word', base64.b64encode(b'not-the-word').decode(), base64.b64encode(b'\0user\0not-the-word').decode()
])
def test_a_server_that_quotes_the_password_is_not_repeated(pool_of: NewPool, form: str) -> None:
    answers = {'EHLO': b'250-hello\r\n250 AUTH PLAIN\r\n', 'AUTH': f'535 no {form} here\r\n'.encode()}
    with scripted_server(**answers) as server:
        pool = pool_of(server.port, credentials=('user', 'not-the-word'))
        with pytest.raises(smtplib.SMTPAuthenticationError, match=r'no \*\*\* here') as refused:
            pool.acquire('main', timeout=5)
    told = ''.join(traceback.format_exception(type(refused.value), refused.value, refused.value.__traceback__))
    assert form not in told


def test_a_server_that_never_stops_asking_is_not_repeated_either(pool_of: NewPool) -> None:
    answers = {
        'EHLO': b'250-hello\r\n250 AUTH LOGIN\r\n',
        'AUTH': b'334 bm90LXRoZS13b3Jk\r\n',
        'BM90LXROZS13B3JK': b'334 bm90LXRoZS13b3Jk\r\n',
        'DXNLCG==': b'334 bm90LXRoZS13b3Jk\r\n',
    }
    with scripted_server(**answers) as server:
        pool = pool_of(server.port, credentials=('user', 'not-the-word'))
        with pytest.raises(smtplib.SMTPException, match=r"endpoint 'main' .*infinite loop.*334.*\*\*\*"):
            pool.acquire('main', timeout=5)


def test_a_password_that_cannot_be_sent_is_not_told(pool_of: NewPool) -> None:
    with scripted_server(EHLO=b'250-hello\r\n250 AUTH PLAIN\r\n') as server:
        pool = pool_of(server.port, credentials=('user', 'pass-wörd'))
        with pytest.raises(ValueError, match='in ASCII only') as refused:
            pool.acquire('main', timeout=5)
    assert refused.value.__context__ is None
    assert 'ö' not in ''.join(traceback.format_exception_only(type(refused.value), refused.value))


def test_a_server_that_knows_no_auth_is_named(pool_of: NewPool) -> None:
    with mail_server() as server:
        pool = pool_of(server.port, credentials=(USER, PASSWORD))
        with pytest.raises(smtplib.SMTPNotSupportedError, match="endpoint 'main' .*AUTH extension not supported"):
            pool.acquire('main', timeout=5)


def test_a_connection_does_not_keep_the_password(pool_of: NewPool, certificates: Certificates) -> None:
    with mail_server(certificates.server(), 'tls', log_in=True) as server:
        pool = pool_of(server.port, 'tls', credentials=(USER, PASSWORD))
        with pool.connection('main') as conn:
            assert PASSWORD not in repr(vars(conn))
        pool.close()


# -- servers that do not answer


@pytest.mark.parametrize('security', ['plain', 'starttls', 'tls'])
def test_a_server_that_never_answers_is_given_up_in_time(pool_of: NewPool, security: str) -> None:
    with silent_server() as (_, port):
        pool = pool_of(port, security)
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=f'127.0.0.1:{port}'):
            pool.acquire('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 2
        assert pool.get_size() == 0
        assert open_descriptors() == before


@pytest.mark.parametrize('greeting, answers', [
    (b'\x00220 a very slow greeting' + b'.' * 300, {}),
    (b'220 hello\r\n', {'EHLO': b'\x00250 a very slow answer' + b'.' * 300}),
    (b'220 hello\r\n', {'EHLO': b'250-hello\r\n250 AUTH PLAIN\r\n', 'AUTH': b'\x00235 welcome' + b'.' * 300}),
])
def test_a_server_that_answers_byte_by_byte_is_given_up_in_time(
    pool_of: NewPool, greeting: bytes, answers: Any
) -> None:
    with scripted_server(greeting, **answers) as server:
        pool = pool_of(server.port, credentials=(USER, PASSWORD))
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=rf"endpoint 'main' \(127.0.0.1:{server.port}\) did not answer in time"):
            pool.acquire('main', timeout=0.2)
        assert 0.19 < time.monotonic() - started < 2
        assert pool.get_size() == 0
        eventually(lambda: open_descriptors() <= before)


def test_a_refused_connection_says_where_and_frees_the_slot(pool_of: NewPool) -> None:
    port = refusing_port()
    pool = pool_of(port)
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to 127.0.0.1:{port}: .*refused'):
        pool.acquire('main', timeout=5)
    assert pool.get_size() == 0


def test_a_server_that_hangs_up_is_named(pool_of: NewPool) -> None:
    with scripted_server(b'') as server:
        pool = pool_of(server.port)

        def hang_up() -> None:
            eventually(lambda: server.accepted)
            server.hang_up()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        with pytest.raises(smtplib.SMTPServerDisconnected, match="endpoint 'main' .*: Connection unexpectedly closed"):
            pool.acquire('main', timeout=5)
        hanging_up.join()


def test_an_interrupted_log_in_closes_the_socket(pool_of: NewPool, monkeypatch: Any) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with scripted_server() as server:
        pool = pool_of(server.port, credentials=(USER, PASSWORD))
        before = open_descriptors()
        monkeypatch.setattr(smtplib.SMTP, 'login', interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire('main')
        assert pool.get_size() == 0
        eventually(lambda: open_descriptors() <= before)


def test_a_child_forked_while_a_server_is_being_greeted_does_not_hold_the_connection_open(pool_of: NewPool) -> None:
    with silent_server() as (_, port):
        pool = pool_of(port)

        def connect() -> None:
            with pytest.raises(TimeoutError):
                pool.acquire('main', timeout=1)

        before = sockets_of(os.getpid())
        connecting = threading.Thread(target=connect)
        connecting.start()
        eventually(lambda: any(sock.fileno() >= 0 for sock in unfinished))
        opened = sockets_of(os.getpid()) - before
        assert len(opened) == 1
        assert not opened & in_child(lambda: sockets_of(os.getpid()))
        connecting.join()
