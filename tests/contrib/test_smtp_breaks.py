"""SMTP sessions that break off where a conversation seldom does, with a server that follows a script."""

import smtplib
from typing import Any, NoReturn

import pytest

pytest.importorskip('aiosmtpd', exc_type=ImportError)

from support.certificates import Certificates  # noqa: E402
from support.servers_smtp import ScriptedServer, scripted_server  # noqa: E402

from generic_connection_pool.contrib._sockets import Deadline  # noqa: E402
from generic_connection_pool.contrib.smtp import SmtpConnection, SmtpConnectionManager, SmtpServer  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

SmtpPool = ConnectionPool[str, SmtpConnection]


def manager_for(server: ScriptedServer, certificates: Certificates) -> SmtpConnectionManager:
    return SmtpConnectionManager({'main': SmtpServer('127.0.0.1', server.port, 'plain')}, certificates.client())


@pytest.mark.parametrize('answer', [b'421 closing down\r\n', b'500 what?\r\n', b'250 one\r\n250 two\r\n'])
def test_an_idle_connection_that_answers_noop_with_anything_but_one_250_is_replaced(
    certificates: Certificates, answer: bytes
) -> None:
    with scripted_server(NOOP=answer) as server:
        manager = manager_for(server, certificates)
        pool: SmtpPool = ConnectionPool(manager)
        with pool.connection('main') as conn:
            pass
        assert not manager.check_aliveness('main', conn)
        with pool.connection('main') as again:
            assert again is not conn
        assert server.accepted == 2
        pool.close()


def test_a_connection_whose_reset_is_interrupted_is_closed(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(conn: Any) -> NoReturn:
        raise KeyboardInterrupt

    with scripted_server() as server:
        manager = manager_for(server, certificates)
        conn = manager.create('main')
        manager.on_acquire('main', conn)
        conn.mail('me@example.org')
        monkeypatch.setattr(smtplib.SMTP, 'rset', interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.on_release('main', conn)
        assert conn.sock is None
        assert conn.transport.fileno() == -1


def test_time_that_is_up_before_a_command_is_sent_is_a_timeout_that_names_the_endpoint(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce = SmtpConnection.ehlo_or_helo_if_needed

    def introduce_too_late(conn: SmtpConnection) -> None:
        with conn.bounded(Deadline(0)):
            introduce(conn)

    monkeypatch.setattr(SmtpConnection, 'ehlo_or_helo_if_needed', introduce_too_late)
    with scripted_server() as server:
        pool: SmtpPool = ConnectionPool(manager_for(server, certificates))
        where = rf"endpoint 'main' \(127.0.0.1:{server.port}\)"
        with pytest.raises(TimeoutError, match=f'^{where} did not answer in time: timed out$'):
            pool.acquire('main', timeout=10)
        assert server.accepted == 1
        assert server.lines == []
        assert pool.get_size() == 0
        pool.close()
