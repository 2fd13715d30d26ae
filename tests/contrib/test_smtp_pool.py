"""A pool of SMTP sessions, against a real server: what one user leaves behind never meets the next."""

import email.message
import smtplib
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

pytest.importorskip('aiosmtpd', exc_type=ImportError)

from support.certificates import Certificates  # noqa: E402
from support.crowds import crowd_of_threads  # noqa: E402
from support.forking import in_child  # noqa: E402
from support.servers import PATIENCE, eventually, open_descriptors  # noqa: E402
from support.servers_smtp import PASSWORD, SERVERS, USER, MailServer, mail_server, scripted_server  # noqa: E402

from generic_connection_pool.contrib.smtp import SmtpConnection, SmtpConnectionManager, SmtpServer  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

SmtpPool = ConnectionPool[str, SmtpConnection]
Conversation = Callable[[SmtpConnection], Any]
FROM, TO = 'me@example.org', 'you@example.org'


@pytest.fixture(params=SERVERS, ids=lambda kind: kind[0])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(kind: Any, certificates: Certificates) -> Iterator[MailServer]:
    with mail_server(certificates.server(), *kind) as server:
        yield server


@pytest.fixture
def manager(server: MailServer, kind: Any, certificates: Certificates) -> SmtpConnectionManager:
    return new_manager(server.port, kind, certificates)


def new_manager(port: int, kind: Any, certificates: Certificates, **parameters: Any) -> SmtpConnectionManager:
    security, log_in = kind
    servers = {'main': SmtpServer('127.0.0.1', port, security, (USER, PASSWORD) if log_in else None)}
    return SmtpConnectionManager(servers, certificates.client(), **parameters)


@pytest.fixture
def pool(manager: SmtpConnectionManager) -> Iterator[SmtpPool]:
    pool: SmtpPool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


def message(text: str, to: str = TO) -> email.message.EmailMessage:
    mail = email.message.EmailMessage()
    mail['From'], mail['To'], mail['Subject'] = FROM, to, 'a test'
    mail.set_content(text)
    return mail


def is_reused_after(pool: SmtpPool, server: MailServer, conversation: Conversation) -> bool:
    """Have two users, one after the other, and tell whether they had the same connection."""
    with pool.connection('main') as conn:
        conversation(conn)
    with pool.connection('main') as conn:
        assert conn.send_message(message('mine')) == {}
    server.answer.set()
    eventually(lambda: b'mine' in server.texts())
    assert pool.get_size() == 1
    assert server.accepted in (1, 2)
    return bool(server.accepted == 1)


# -- conversations that are over


def send_a_mail(conn: SmtpConnection) -> None:
    conn.send_message(message('theirs'))


def send_a_mail_in_unicode(conn: SmtpConnection) -> None:
    conn.send_message(message('theirs', 'ö@example.org'))
    assert conn.command_encoding == 'utf-8'


def leave_a_mail_half_addressed(conn: SmtpConnection) -> None:
    conn.mail('theirs@example.org')
    conn.rcpt('theirs@example.org')


def be_refused(conn: SmtpConnection) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        conn.send_message(message('theirs', 'refused@example.org'))


def ask(conn: SmtpConnection) -> None:
    assert conn.verify('someone@example.org') == (252, b'someone@example.org')


def do_nothing(conn: SmtpConnection) -> None:
    pass


@pytest.mark.parametrize('conversation', [
    send_a_mail, send_a_mail_in_unicode, leave_a_mail_half_addressed, be_refused, ask, do_nothing
])
def test_a_connection_is_reused_and_nothing_left_of_the_mail_before(
    pool: SmtpPool, server: MailServer, conversation: Conversation
) -> None:
    assert is_reused_after(pool, server, conversation)
    assert server.mails[-1].mail_from == FROM
    assert server.mails[-1].rcpt_tos == [TO]


def test_a_mail_that_was_begun_is_forgotten_by_the_server_on_release(pool: SmtpPool, server: MailServer) -> None:
    with pool.connection('main') as conn:
        leave_a_mail_half_addressed(conn)
        before = server.commands['RSET']
    assert server.commands['RSET'] == before + 1
    with pool.connection('main') as again:
        assert again is conn
        # it is not 503, nested MAIL command
        assert again.mail(FROM)[0] == 250


def test_nothing_is_sent_on_release_if_nothing_was_sent_before(pool: SmtpPool, server: MailServer) -> None:
    for _ in range(3):
        with pool.connection('main'):
            pass
    # one for each use after the first
    assert server.commands == {'NOOP': 2, 'RSET': 0, 'QUIT': 0}


def test_what_a_user_has_set_is_restored(pool: SmtpPool, server: MailServer, capfd: Any) -> None:
    with pool.connection('main') as conn:
        name, features = conn.local_hostname, dict(conn.esmtp_features)
        conn.sock.settimeout(0.5)
        conn.set_debuglevel(2)
        conn.local_hostname, conn.command_encoding, conn.timeout = 'elsewhere', 'utf-8', 1
        conn.esmtp_features.clear()
    capfd.readouterr()
    with pool.connection('main') as again:
        assert again is conn
        again.noop()
        assert again.sock.gettimeout() is None
        assert (again.local_hostname, again.command_encoding) == (name, 'ascii')
        assert again.esmtp_features == features
        assert again.timeout != 1
    assert capfd.readouterr() == ('', '')


# -- conversations that are not


def leave_before_the_answer(conn: SmtpConnection) -> None:
    conn.putcmd('VRFY', 'theirs@example.org')


def leave_before_the_text(conn: SmtpConnection) -> None:
    conn.mail(FROM)
    conn.rcpt(TO)
    assert conn.docmd('DATA')[0] == 354


def leave_in_the_middle_of_the_text(conn: SmtpConnection) -> None:
    leave_before_the_text(conn)
    conn.send(b'Subject: theirs\r\n\r\n')


def time_out_in_the_middle_of_a_mail(conn: SmtpConnection) -> None:
    conn.sock.settimeout(0.05)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        conn.send_message(message('theirs', 'held@example.org'))


def send_two_commands_at_once(conn: SmtpConnection) -> None:
    conn.send('NOOP\r\nVRFY theirs@example.org\r\n')
    assert conn.getreply()[0] == 250


def be_sent_away(conn: SmtpConnection) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        conn.send_message(message('theirs', 'gone@example.org'))


def be_sent_away_from_a_single_command(conn: SmtpConnection) -> None:
    conn.mail(FROM)
    assert conn.rcpt('gone@example.org')[0] == 421


def quit(conn: SmtpConnection) -> None:
    with conn:
        conn.noop()


def close(conn: SmtpConnection) -> None:
    conn.close()


def greet_under_another_name(conn: SmtpConnection) -> None:
    assert conn.ehlo('elsewhere.example.org')[0] == 250


def fail_to_log_in(conn: SmtpConnection) -> None:
    assert conn.docmd('AUTH', 'NONSENSE')[0] >= 500


@pytest.mark.parametrize('conversation', [
    leave_before_the_answer, leave_before_the_text, leave_in_the_middle_of_the_text, time_out_in_the_middle_of_a_mail,
    send_two_commands_at_once, be_sent_away, be_sent_away_from_a_single_command, quit, close, greet_under_another_name,
    fail_to_log_in,
])
def test_a_connection_is_not_reused_when_a_conversation_is_not_over_or_has_changed_the_session(
    pool: SmtpPool, server: MailServer, conversation: Conversation
) -> None:
    assert not is_reused_after(pool, server, conversation)
    # nothing of the other's has become part of it
    mine = [mail for mail in server.mails if b'mine' in (mail.content or b'')]
    assert [(mail.mail_from, mail.rcpt_tos) for mail in mine] == [(FROM, [TO])]


@pytest.mark.parametrize('error, reused', [
    (ValueError, True), (smtplib.SMTPDataError(550, b'no'), True), (smtplib.SMTPServerDisconnected('gone'), False),
    (TimeoutError, False), (ConnectionResetError, False), (KeyboardInterrupt, False),
])
def test_an_error_between_two_commands_costs_the_connection_only_if_it_may_be_the_connections(
    pool: SmtpPool, server: MailServer, error: Any, reused: bool
) -> None:
    with pytest.raises(error if isinstance(error, type) else type(error)), pool.connection('main') as conn:
        leave_a_mail_half_addressed(conn)
        raise error
    assert is_reused_after(pool, server, do_nothing) == reused


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('conversation', [
    leave_before_the_answer, leave_before_the_text, leave_in_the_middle_of_the_text, be_sent_away_from_a_single_command
])
def test_an_error_in_mid_conversation_costs_the_connection(
    pool: SmtpPool, server: MailServer, conversation: Conversation, error: Any
) -> None:
    with pytest.raises(error), pool.connection('main') as conn:
        conversation(conn)
        raise error
    assert pool.get_size() == 0
    assert not is_reused_after(pool, server, do_nothing)


def test_a_pooled_connection_does_not_connect_again(pool: SmtpPool, server: MailServer) -> None:
    with pool.connection('main') as conn:
        conn.close()
        with pytest.raises(smtplib.SMTPServerDisconnected, match='acquire another'):
            conn.connect('127.0.0.1', server.port)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            conn.noop()
    assert server.accepted == 1


# -- servers that fail


def test_a_connection_closed_by_the_server_while_idle_is_replaced(pool: SmtpPool, server: MailServer) -> None:
    with pool.connection('main') as conn:
        conn.noop()
    server.close_connections()
    assert not is_reused_after(pool, server, do_nothing)


def test_a_server_that_says_421_while_a_connection_is_idle_is_noticed(
    pool: SmtpPool, server: MailServer, manager: SmtpConnectionManager
) -> None:
    with pool.connection('main') as conn:
        conn.noop()
    server.say(b'421 4.4.2 idle for too long\r\n')
    eventually(lambda: not manager.check_aliveness('main', conn, 0))
    assert not is_reused_after(pool, server, do_nothing)


def test_a_server_can_be_restarted(kind: Any, certificates: Certificates) -> None:
    with mail_server(certificates.server(), *kind) as server:
        port = server.port
        pool: SmtpPool = ConnectionPool(new_manager(port, kind, certificates))
        conns = [pool.acquire('main') for _ in range(3)]
        for conn in conns:
            pool.release(conn, 'main')
    with pytest.raises(ConnectionRefusedError):
        pool.acquire('main')
    with mail_server(certificates.server(), *kind, port=port) as server:
        for _ in range(3):
            with pool.connection('main') as conn:
                conn.send_message(message('mine'))
        assert server.texts() == [b'mine'] * 3
        assert server.accepted == 1
        eventually(lambda: all(conn.transport.fileno() == -1 for conn in conns))
        pool.close()


def test_a_server_killed_in_the_middle_of_a_mail_is_an_error_and_no_loss(pool: SmtpPool, server: MailServer) -> None:
    def kill() -> None:
        eventually(lambda: server.held)
        server.close_connections()

    before = open_descriptors()
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(smtplib.SMTPServerDisconnected), pool.connection('main') as conn:
        conn.send_message(message('theirs', 'held@example.org'))
    killer.join()
    assert pool.get_size() == 0
    eventually(lambda: open_descriptors() <= before)
    with pool.connection('main') as conn:
        conn.send_message(message('mine'))


def test_an_idle_connection_that_does_not_answer_noop_is_given_up_in_time(
    pool: SmtpPool, server: MailServer, manager: SmtpConnectionManager
) -> None:
    with pool.connection('main') as conn:
        pass
    server.deaf = True
    started = time.monotonic()
    # without a round trip there is nothing to be found
    assert manager.check_aliveness('main', conn, 0)
    assert time.monotonic() - started < 1
    assert not manager.check_aliveness('main', conn, 0.1)
    assert 0.09 < time.monotonic() - started < 2
    server.deaf = False
    # nor does its late answer become another's
    assert not is_reused_after(pool, server, do_nothing)


def test_a_released_connection_that_does_not_answer_rset_is_closed(
    server: MailServer, kind: Any, certificates: Certificates, caplog: Any
) -> None:
    pool: SmtpPool = ConnectionPool(new_manager(server.port, kind, certificates, patience=0.1))
    started = time.monotonic()
    with pool.connection('main') as conn:
        leave_a_mail_half_addressed(conn)
        server.deaf = True
    assert time.monotonic() - started < 2
    assert conn.transport.fileno() == -1
    told, = [record.getMessage() for record in caplog.records if record.name.startswith('generic_connection_pool')]
    assert told.startswith("a connection to 'main' was closed: it could not be reset: Connection unexpectedly closed")
    server.deaf = False
    assert not is_reused_after(pool, server, do_nothing)
    pool.close()


def test_a_released_connection_whose_rset_is_refused_is_closed(certificates: Certificates) -> None:
    with scripted_server(RSET=b'421 closing down\r\n') as server:
        pool: SmtpPool = ConnectionPool(new_manager(server.port, ('plain', False), certificates))
        for _ in range(2):
            with pool.connection('main') as conn:
                conn.noop()
            assert conn.sock is None
        assert server.accepted == 2
        pool.close()


def test_half_of_an_answer_of_several_lines_never_reaches_the_next_user(certificates: Certificates) -> None:
    with scripted_server(HELP=b'214-one\r\n214-two\r\n', NOOP=b'250 OK\r\n') as server:
        pool: SmtpPool = ConnectionPool(new_manager(server.port, ('plain', False), certificates))
        with pool.connection('main') as conn:
            conn.sock.settimeout(0.05)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                conn.help()
        with pool.connection('main') as conn:
            assert conn.noop() == (250, b'OK')
        assert server.accepted == 2
        pool.close()


def test_two_answers_to_one_command_never_reach_the_next_user(certificates: Certificates) -> None:
    # the second one would pass for that to RSET
    with scripted_server(VRFY=b'252 one\r\n250 two\r\n') as server:
        pool: SmtpPool = ConnectionPool(new_manager(server.port, ('plain', False), certificates))
        for _ in range(2):
            with pool.connection('main') as conn:
                assert conn.verify('x') == (252, b'one')
        assert server.accepted == 2
        with pytest.raises(ValueError), pool.connection('main') as conn:
            conn.verify('x')
            raise ValueError
        # nor is there a moment in which only the answer to RSET could tell
        assert pool.get_size() == 0
        pool.close()


# -- the end


def test_disposing_says_quit_between_two_commands_and_only_then(pool: SmtpPool, server: MailServer) -> None:
    with pool.connection('main') as conn:
        conn.noop()
    with pool.connection('main'):
        with pytest.raises(ValueError), pool.connection('main') as conn:
            leave_before_the_answer(conn)
            raise ValueError
    pool.close()
    assert server.commands['QUIT'] == 1


def test_disposing_does_not_wait_for_a_server_that_is_stuck(certificates: Certificates) -> None:
    with scripted_server(QUIT=b'') as server:
        pool: SmtpPool = ConnectionPool(new_manager(server.port, ('plain', False), certificates))
        with pool.connection('main'):
            pass
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 3
        assert server.lines[-1] == 'QUIT'


def test_disposing_does_not_mind_a_server_that_is_gone_or_a_connection_that_is_closed(
    manager: SmtpConnectionManager, server: MailServer
) -> None:
    conn = manager.create('main')
    server.close_connections()
    manager.dispose('main', conn)
    manager.dispose('main', conn)


def test_a_pool_closed_by_force_wakes_a_user_who_waits_for_an_answer(pool: SmtpPool, server: MailServer) -> None:
    outcome: List[Any] = []

    def use() -> None:
        with pool.connection('main') as conn:
            try:
                conn.send_message(message('theirs', 'held@example.org'))
            except smtplib.SMTPServerDisconnected as exc:
                outcome.append(str(exc))

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: server.held)
    pool.close(timeout=0.02)
    user.join(PATIENCE)
    assert not user.is_alive()
    assert len(outcome) == 1


def test_the_exit_of_a_forked_child_is_not_heard_by_the_server(pool: SmtpPool, server: MailServer) -> None:
    used = pool.acquire('main')
    with pool.connection('main') as idle:
        idle.noop()

    def child() -> Any:
        for conn in (used, idle):
            with pytest.raises(smtplib.SMTPServerDisconnected):
                conn.noop()
            conn.close()
        with pool.connection('main') as own:
            answer = own.verify('child@example.org')
        pool.close()
        return answer

    assert in_child(child) == (252, b'child@example.org')
    assert used.verify('parent@example.org') == (252, b'parent@example.org')
    pool.release(used, 'main')
    with pool.connection('main') as again:
        ask(again)
    # the child has ended no session but its own
    assert server.accepted == 3
    assert server.commands['QUIT'] == 1


# -- many users


def test_each_of_fifty_threads_gets_the_answers_to_its_own_questions(pool: SmtpPool, server: MailServer) -> None:
    def ask(question: str) -> Any:
        address = f'{question}@example.org'
        with pool.connection('main', timeout=PATIENCE) as conn:
            _, answer = conn.verify(address)
            if question.endswith('-0'):
                conn.send_message(message(question))
            elif question.endswith('-1'):
                leave_a_mail_half_addressed(conn)
        return address.encode(), answer

    crowd_of_threads(ask, questions=3)
    assert sorted(server.texts()) == sorted(f'user-{user}-question-0'.encode() for user in range(50))
    assert server.accepted <= 5
