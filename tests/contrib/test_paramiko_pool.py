"""A pool of paramiko connections, against a real server: what users leave behind, and failures."""

import os
import signal
import socket
import struct
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

paramiko = pytest.importorskip('paramiko', exc_type=ImportError)

from support.crowds import crowd_of_threads  # noqa: E402
from support.forking import in_child, sockets_of  # noqa: E402
from support.servers import eventually, open_descriptors  # noqa: E402
from support.ssh_by_paramiko import (  # noqa: E402
    Manager,
    conn as conn,
    manager as manager,
    no_thread_is_left as no_thread_is_left,
    run,
)
from support.sshd import OpenSshServer, for_paramiko  # noqa: E402

from generic_connection_pool.contrib.paramiko import SshConnectionManager  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Pool = ConnectionPool[str, Any]


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


# -- use


def test_a_connection_is_reused(pool: Pool, sshd: OpenSshServer) -> None:
    servers = []
    for _ in range(3):
        with pool.connection('main') as conn:
            servers.append(run(conn, 'echo $PPID'))
    assert len(set(servers)) == 1
    assert sshd.connections() == 1


def test_a_connection_carries_several_channels_at_once(pool: Pool) -> None:
    with pool.connection('main') as conn:
        conversations = [conn.exec_command('cat') for _ in range(8)]
        for number, (stdin, _, _) in enumerate(conversations):
            stdin.write(f'question {number}\n')
            stdin.channel.shutdown_write()
        with conn.open_sftp() as sftp:
            assert 'tmp' in sftp.listdir('/')
        for number, (_, stdout, _) in reversed(list(enumerate(conversations))):
            assert stdout.read().decode() == f'question {number}\n'
            assert stdout.channel.recv_exit_status() == 0


def test_the_current_directory_of_an_sftp_client_is_not_left_to_the_next_user(pool: Pool, sshd: OpenSshServer) -> None:
    with pool.connection('main') as conn:
        home = conn.open_sftp().normalize('.')
        sftp = conn.open_sftp()
        sftp.chdir('/tmp')
        assert sftp.normalize('.') == '/tmp'
    with pool.connection('main') as again:
        assert again is conn
        assert again.open_sftp().normalize('.') == home
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        sftp.listdir()


def test_threads_that_share_a_pool_get_the_answers_to_their_own_questions(pool: Pool, sshd: OpenSshServer) -> None:
    def ask(question: str) -> Tuple[str, str]:
        with pool.connection('main', timeout=60) as conn:
            return question, run(conn, f'echo {question}')

    crowd_of_threads(ask, threads=50, questions=4)
    assert sshd.connections() == pool.get_size() == 5


# -- what users leave behind


@pytest.mark.parametrize('failure', [None, ValueError, FileNotFoundError], ids=str)
def test_what_an_interrupted_command_still_prints_never_reaches_the_next_user(pool: Pool, failure: Any) -> None:
    conns: List[Any] = []
    left: List[Any] = []
    for number in range(8):
        try:
            with pool.connection('main') as conn:
                conns.append(conn)
                assert run(conn, f'echo mine-{number}') == f'mine-{number}'
                _, stdout, _ = conn.exec_command('exec yes secret')
                sftp = conn.open_sftp()
                # a file is being read, too
                reading = sftp.open('/dev/zero')
                assert stdout.readline() == 'secret\n'
                assert reading.read(10) == bytes(10)
                left.append((stdout, sftp, reading))
                if failure is not None:
                    raise failure
        except (ValueError, FileNotFoundError):
            assert failure is not None
        assert stdout.channel.closed
        assert sftp.get_channel().closed
    # each user had the same connection, with a new channel
    assert len(set(map(id, conns))) == 1


def test_channels_that_are_left_open_end_at_the_server(pool: Pool) -> None:
    with pool.connection('main') as conn:
        stdin, stdout, _ = conn.exec_command('echo $$; exec cat')
        pid = int(stdout.readline())
        assert os.path.isdir(f'/proc/{pid}')
    # it reads the end of its input
    eventually(lambda: not os.path.isdir(f'/proc/{pid}'))
    with pytest.raises(OSError):
        stdin.write('more')
        stdin.flush()


@pytest.mark.parametrize('remembers', [True, False])
def test_commands_that_go_on_do_not_use_up_what_the_server_lets_the_next_user_have(
    pool: Pool, sshd: OpenSshServer, remembers: bool
) -> None:
    conns: List[Any] = []
    left: List[Any] = []
    for number in range(12):
        with pool.connection('main') as conn:
            conns.append(conn)
            # it reads nothing and prints nothing: it does not notice that nobody listens any more
            streams = conn.exec_command('exec sleep 30')
            if remembers:
                left.append(streams)
            del streams
            assert run(conn, f'echo {number}') == str(number)
    # OpenSSH's server lets a connection have ten sessions
    assert max(conns.count(conn) for conn in conns) < 10
    assert len(set(map(id, conns))) < 10


def test_a_forwarded_port_is_not_left_to_the_next_user(pool: Pool, sshd: OpenSshServer) -> None:
    with pool.connection('main') as conn:
        port = conn.get_transport().request_port_forward('127.0.0.1', 0)
        socket.create_connection(('127.0.0.1', port), 5).close()
    with pool.connection('main') as again:
        assert again is not conn
    with pytest.raises(ConnectionRefusedError):
        eventually(lambda: socket.create_connection(('127.0.0.1', port), 5).close())
    eventually(lambda: sshd.connections() == 1)


def test_a_keepalive_that_a_user_has_changed_is_restored(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager(
        {'main': for_paramiko(sshd)}, known_hosts=sshd.known_hosts, keepalive=0.2
    )
    conn: Any = manager.create('main')
    conn.get_transport().set_keepalive(0)
    manager.on_release('main', conn)
    sock = conn.get_transport().sock
    # it has been silent for a while, and then it has not, though nobody has asked
    for _ in range(2):
        eventually(lambda: since_last_sent(sock) > 0.15)
        eventually(lambda: since_last_sent(sock) < 0.1)
    assert run(conn, 'echo hello') == 'hello'
    manager.dispose('main', conn)


def since_last_sent(sock: socket.socket) -> float:
    """Seconds since data was last sent, as the system knows."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (milliseconds,) = struct.unpack_from('=I', info, 44)
    return float(milliseconds) / 1000


# -- failures in a block


def open_a_channel_to_nowhere(conn: Any) -> None:
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        conn.get_transport().open_channel('direct-tcpip', unused.getsockname(), ('127.0.0.1', 1))


def run_out_of_patience(conn: Any) -> None:
    conn.exec_command('sleep 5', timeout=0.05)[1].read()


def wait_for_an_alarm(conn: Any) -> None:
    _, stdout, _ = conn.exec_command('sleep 5')
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    stdout.read()


def close_twice(conn: Any) -> None:
    conn.close()
    raise ValueError


#: what may go wrong in a block, whether the connection is used again
FAILURES: Dict[Callable[[Any], None], bool] = {
    open_a_channel_to_nowhere: True,
    lambda conn: conn.open_sftp().stat('/no/such/file'): True,
    run_out_of_patience: False,
    wait_for_an_alarm: False,
    close_twice: False,
}  # fmt: skip


@pytest.mark.parametrize('fail', FAILURES, ids=lambda fail: str(fail.__name__))
def test_what_goes_wrong_tells_whether_a_connection_is_used_again(
    pool: Pool, fail: Callable[[Any], None]
) -> None:
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(BaseException) as caught, pool.connection('main') as conn:
            fail(conn)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert not isinstance(caught.value, AssertionError)
    with pool.connection('main') as again:
        assert (again is conn) is FAILURES[fail]
        assert run(again, 'echo hello') == 'hello'
    assert pool.get_size() == 1


ERRORS: Dict[Any, bool] = {
    ValueError(): True,
    paramiko.ChannelException(1, 'prohibited'): True,
    FileNotFoundError(): True,
    PermissionError(): True,
    paramiko.SSHException(): False,
    paramiko.SFTPError(): False,
    EOFError(): False,
    OSError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


def test_an_error_tells_whether_a_connection_can_go_on(manager: Manager, conn: Any) -> None:
    for error, reusable in ERRORS.items():
        assert manager.is_reusable('main', conn, error) is reusable, error


# -- failures of the server


def test_connections_to_a_server_that_was_restarted_are_replaced(pool: Pool, sshd: OpenSshServer) -> None:
    conns = [pool.acquire('main') for _ in range(3)]
    for conn in conns:
        pool.release(conn, 'main')
    before = open_descriptors()
    sshd.stop()
    sshd.start()
    with pool.connection('main', timeout=10) as again:
        assert run(again, 'echo hello') == 'hello'
        assert again not in conns
    for _ in range(3):
        with pool.connection('main', timeout=10) as again:
            assert run(again, 'echo hello') == 'hello'
    eventually(lambda: sshd.connections() == pool.get_size())
    assert open_descriptors() <= before


@pytest.mark.parametrize('notices', [True, False])
def test_a_server_that_dies_while_a_connection_is_in_use_is_no_trouble_to_the_next_user(
    pool: Pool, sshd: OpenSshServer, notices: bool
) -> None:
    try:
        with pool.connection('main') as conn:
            _, stdout, _ = conn.exec_command('sleep 30')
            sshd.stop()
            if notices:
                # the channel has come to its end
                assert stdout.read() == b''
                conn.exec_command('echo hello')
    except (paramiko.SSHException, OSError, EOFError):
        assert notices
    else:
        assert not notices
    with pytest.raises(OSError, match="endpoint 'main'"):
        pool.acquire('main', timeout=5)
    eventually(lambda: pool.get_size() == 0)
    sshd.start()
    with pool.connection('main') as again:
        assert again is not conn
        assert run(again, 'echo hello') == 'hello'


def test_a_pool_closed_by_force_wakes_who_waits_for_a_server_that_is_stuck(pool: Pool, sshd: OpenSshServer) -> None:
    outcomes: List[Any] = []
    waiting = threading.Event()

    def use() -> None:
        with pool.connection('main') as conn:
            _, stdout, _ = conn.exec_command('echo started; sleep 30')
            assert stdout.readline() == 'started\n'
            waiting.set()
            outcomes.append(stdout.read())

    user = threading.Thread(target=use)
    user.start()
    assert waiting.wait(10)
    with sshd.stopped():
        started = time.monotonic()
        pool.close(timeout=0.05)
        user.join(10)
        assert not user.is_alive()
        assert time.monotonic() - started < 3
    assert outcomes == [b'']
    eventually(lambda: sshd.connections() == 0)


# -- the process


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_the_server_hears_nothing_of_a_child_that_closes_all_it_knows(pool: Pool, sshd: OpenSshServer) -> None:
    with pool.connection('main') as held:
        with pool.connection('main') as idle:
            pass
        servers = [run(conn, 'echo $PPID') for conn in (held, idle)]
        mine = {os.fstat(conn.get_transport().sock.fileno()).st_ino for conn in (held, idle)}

        def check() -> Any:
            shared = mine & sockets_of(os.getpid())
            with pool.connection('main') as conn:
                fresh = run(conn, 'echo $PPID') not in servers
            alive = held.get_transport().is_active()
            pool.release(held, 'main')
            pool.close()
            for conn in (held, idle):
                conn.close()
            return shared, fresh, alive

        assert in_child(check) == (set(), True, False)
        assert [run(conn, 'echo $PPID') for conn in (held, idle)] == servers
