"""A pool of asyncssh connections, against a real server: what users leave behind, and failures."""

import asyncio
import contextlib
import gc
import os
import socket
import time
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Tuple

import pytest

asyncssh = pytest.importorskip('asyncssh', exc_type=ImportError)

from support.crowds import crowd_of_tasks  # noqa: E402
from support.forking import in_child, sockets_of  # noqa: E402
from support.servers import eventually, eventually_async, open_descriptors  # noqa: E402
from support.sshd import OpenSshServer, for_asyncssh  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.asyncssh import SshConnectionManager  # noqa: E402

Manager = SshConnectionManager[str]
Pool = ConnectionPool[str, Any]


@pytest.fixture
def manager(sshd: OpenSshServer) -> Manager:
    return SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=sshd.known_hosts)


@pytest.fixture
async def pool(manager: Manager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    await pool.close(timeout=5)


async def run(conn: Any, command: str) -> str:
    """Run a command and return what it prints."""
    return str((await conn.run(command)).stdout).strip()


# -- use


async def test_a_connection_is_reused(pool: Pool, sshd: OpenSshServer) -> None:
    servers = []
    for _ in range(3):
        async with pool.connection('main') as conn:
            servers.append(await run(conn, 'echo $PPID'))
    assert len(set(servers)) == 1
    assert sshd.connections() == 1


async def test_a_connection_carries_several_channels_at_once(pool: Pool) -> None:
    async with pool.connection('main') as conn:
        async def ask(number: int) -> str:
            return str((await conn.run('cat', input=f'question {number}')).stdout)

        asking = [asyncio.ensure_future(ask(number)) for number in range(8)]
        async with conn.start_sftp_client() as sftp:
            assert 'tmp' in await sftp.listdir('/')
        assert await asyncio.gather(*asking) == [f'question {number}' for number in range(8)]


async def test_the_current_directory_of_an_sftp_client_is_not_left_to_the_next_user(pool: Pool) -> None:
    async with pool.connection('main') as conn:
        async with conn.start_sftp_client() as other:
            home = await other.getcwd()
        sftp = await conn.start_sftp_client()
        await sftp.chdir('/tmp')
        assert await sftp.getcwd() == '/tmp'
    async with pool.connection('main') as again:
        assert again is conn
        async with again.start_sftp_client() as other:
            assert await other.getcwd() == home
    with pytest.raises(asyncssh.SFTPError):
        await sftp.listdir()


async def test_tasks_that_share_a_pool_get_the_answers_to_their_own_questions(
    pool: Pool, sshd: OpenSshServer
) -> None:
    async def ask(question: str) -> Tuple[str, str]:
        async with pool.connection('main', timeout=60) as conn:
            return question, await run(conn, f'echo {question}')

    await crowd_of_tasks(ask, tasks=200, questions=1)
    assert sshd.connections() == pool.get_size() == 5


# -- what users leave behind


@pytest.mark.parametrize('failure', [None, ValueError, FileNotFoundError], ids=str)
async def test_what_an_interrupted_command_still_prints_never_reaches_the_next_user(pool: Pool, failure: Any) -> None:
    conns: List[Any] = []
    left: List[Any] = []
    for number in range(8):
        try:
            async with pool.connection('main') as conn:
                conns.append(conn)
                assert await run(conn, f'echo mine-{number}') == f'mine-{number}'
                process = await conn.create_process('exec yes secret')
                assert await process.stdout.readline() == 'secret\n'
                # a file is being read, too
                sftp = await conn.start_sftp_client()
                reading = await sftp.open('/dev/zero', 'rb')
                pending = asyncio.ensure_future(reading.read(1 << 20))
                await asyncio.sleep(0)
                left.append((process, sftp, pending))
                if failure is not None:
                    raise failure
        except (ValueError, FileNotFoundError):
            assert failure is not None
    # each user had the same connection, with a new channel
    assert len(set(map(id, conns))) == 1
    for process, _, pending in left:
        await asyncio.wait_for(process.wait_closed(), 10)
        with contextlib.suppress(asyncssh.SFTPError):
            await asyncio.wait_for(pending, 10)


async def test_a_cancelled_command_costs_the_connection_and_reaches_nobody(pool: Pool, sshd: OpenSshServer) -> None:
    conns: List[Any] = []

    async def use() -> None:
        async with pool.connection('main') as conn:
            conns.append(conn)
            await conn.run('exec yes secret')

    for rounds in range(4):
        user = asyncio.ensure_future(use())
        await eventually_async(lambda: len(conns) > rounds)
        for _ in range(rounds * 3):
            await asyncio.sleep(0.001)
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        async with pool.connection('main') as again:
            assert again is not conns[-1]
            assert await run(again, 'echo mine') == 'mine'
    await eventually_async(lambda: sshd.connections() == 1)


async def test_channels_that_are_left_open_end_at_the_server(pool: Pool) -> None:
    async with pool.connection('main') as conn:
        process = await conn.create_process('echo $$; exec cat')
        pid = int(await process.stdout.readline())
        assert os.path.isdir(f'/proc/{pid}')
    # it reads the end of its input
    await eventually_async(lambda: not os.path.isdir(f'/proc/{pid}'))
    with pytest.raises(BrokenPipeError):
        process.stdin.write('more')


async def test_commands_that_go_on_do_not_use_up_what_the_server_lets_the_next_user_have(pool: Pool) -> None:
    conns: List[Any] = []
    for number in range(12):
        async with pool.connection('main') as conn:
            conns.append(conn)
            # it reads nothing and prints nothing: it does not notice that nobody listens any more
            await conn.create_process('exec sleep 30')
            assert await run(conn, f'echo {number}') == str(number)
    # OpenSSH's server lets a connection have ten sessions
    assert max(conns.count(conn) for conn in conns) < 10
    assert len(set(map(id, conns))) < 10


@pytest.mark.parametrize('where', ['forward_remote_port', 'forward_local_port'])
async def test_a_forwarded_port_is_not_left_to_the_next_user(pool: Pool, sshd: OpenSshServer, where: str) -> None:
    async with pool.connection('main') as conn:
        listener = await getattr(conn, where)('127.0.0.1', 0, '127.0.0.1', sshd.port)
        port = listener.get_port()
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        assert await reader.readexactly(4) == b'SSH-'
        writer.close()
        await writer.wait_closed()
        # asyncssh forgets to close what it is just connecting
        await eventually_async(lambda: sshd.connections() == 1)
    async with pool.connection('main') as again:
        assert again is not conn
    await eventually_async(lambda: refuses(port))
    await eventually_async(lambda: sshd.connections() == 1)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_a_channel_that_is_just_being_opened_costs_the_connection(pool: Pool) -> None:
    async with pool.connection('main') as conn:
        opening = asyncio.ensure_future(conn.run('echo secret'))
        await asyncio.sleep(0)
    async with pool.connection('main') as again:
        assert again is not conn
    with pytest.raises(asyncssh.Error):
        await opening


# -- failures in a block


async def fail_at_the_server(conn: Any) -> None:
    await conn.run('exit 3', check=True)


async def open_a_channel_to_nowhere(conn: Any) -> None:
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        await conn.open_connection('127.0.0.1', unused.getsockname()[1])


async def ask_for_a_missing_file(conn: Any) -> None:
    async with conn.start_sftp_client() as sftp:
        await sftp.stat('/no/such/file')


async def run_out_of_patience(conn: Any) -> None:
    await conn.run('sleep 5', timeout=0.05)


async def run_out_of_time(conn: Any) -> None:
    await asyncio.wait_for(conn.run('sleep 5'), 0.05)


async def close_twice(conn: Any) -> None:
    conn.close()
    raise ValueError


#: what may go wrong in a block, whether the connection is used again
FAILURES: Dict[Callable[[Any], Awaitable[None]], bool] = {
    fail_at_the_server: True,
    open_a_channel_to_nowhere: True,
    ask_for_a_missing_file: True,
    run_out_of_patience: False,
    run_out_of_time: False,
    close_twice: False,
}


@pytest.mark.parametrize('fail', FAILURES, ids=lambda fail: str(fail.__name__))
async def test_what_goes_wrong_tells_whether_a_connection_is_used_again(
    pool: Pool, fail: Callable[[Any], Awaitable[None]]
) -> None:
    with pytest.raises(Exception) as caught:
        async with pool.connection('main') as conn:
            await fail(conn)
    assert not isinstance(caught.value, AssertionError)
    async with pool.connection('main') as again:
        assert (again is conn) is FAILURES[fail]
        assert await run(again, 'echo hello') == 'hello'
    await eventually_async(lambda: pool.get_size() == 1)


ERRORS: Dict[Any, bool] = {
    ValueError(): True,
    asyncssh.ChannelOpenError(1, 'prohibited'): True,
    asyncssh.SFTPFailure('directory not empty'): True,
    FileNotFoundError(): True,
    asyncssh.SFTPConnectionLost('lost'): False,
    asyncssh.SFTPNoConnection('none'): False,
    asyncssh.SFTPBadMessage('what?'): False,
    asyncssh.ConnectionLost('lost'): False,
    asyncssh.ProtocolError('what?'): False,
    asyncssh.Error(1, 'unknown'): False,
    OSError(): False,
    TimeoutError(): False,
    asyncio.TimeoutError(): False,
    ConnectionResetError(): False,
    asyncio.CancelledError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


async def test_an_error_tells_whether_a_connection_can_go_on(manager: Manager) -> None:
    conn = await manager.create('main')
    for error, reusable in ERRORS.items():
        assert manager.is_reusable('main', conn, error) is reusable, error
    await manager.dispose('main', conn)


# -- failures of the server


async def test_connections_to_a_server_that_was_restarted_are_replaced(pool: Pool, sshd: OpenSshServer) -> None:
    conns = [await pool.acquire('main') for _ in range(3)]
    for conn in conns:
        await pool.release(conn, 'main')
    before = open_descriptors()
    # the event loop has no chance to notice before the next acquire
    sshd.stop()
    sshd.start()
    for _ in range(4):
        async with pool.connection('main', timeout=10) as again:
            assert await run(again, 'echo hello') == 'hello'
            assert again not in conns
    await eventually_async(lambda: sshd.connections() == pool.get_size())
    assert open_descriptors() <= before


@pytest.mark.parametrize('notices', [True, False])
async def test_a_server_that_dies_while_a_connection_is_in_use_is_no_trouble_to_the_next_user(
    pool: Pool, sshd: OpenSshServer, notices: bool
) -> None:
    try:
        async with pool.connection('main') as conn:
            process = await conn.create_process('sleep 30')
            sshd.stop()
            if notices:
                await process.wait()
                await conn.run('echo hello')
    except (asyncssh.Error, OSError):
        assert notices
    else:
        assert not notices
    with pytest.raises(OSError, match="endpoint 'main'"):
        await pool.acquire('main', timeout=5)
    await eventually_async(lambda: pool.get_size() == 0)
    sshd.start()
    async with pool.connection('main') as again:
        assert again is not conn
        assert await run(again, 'echo hello') == 'hello'


async def test_a_pool_closed_by_force_wakes_who_waits_for_a_server_that_is_stuck(
    pool: Pool, sshd: OpenSshServer
) -> None:
    started = asyncio.Event()

    async def use() -> Any:
        async with pool.connection('main') as conn:
            process = await conn.create_process('echo started; sleep 30')
            assert await process.stdout.readline() == 'started\n'
            started.set()
            return await process.stdout.read()

    user = asyncio.ensure_future(use())
    await asyncio.wait_for(started.wait(), 10)
    with sshd.stopped():
        before = time.monotonic()
        await pool.close(timeout=0.05)
        assert await asyncio.wait_for(user, 10) == ''
        assert time.monotonic() - before < 3
    await eventually_async(lambda: sshd.connections() == 0)


# -- the process


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
async def test_the_server_hears_nothing_of_a_child(pool: Pool, sshd: OpenSshServer) -> None:
    async with pool.connection('main') as held:
        async with pool.connection('main') as idle:
            pass
        servers = [await run(conn, 'echo $PPID') for conn in (held, idle)]
        mine = {os.fstat(conn.get_extra_info('socket').fileno()).st_ino for conn in (held, idle)}
        assert len(mine) == 2
        assert in_child(lambda: mine & sockets_of(os.getpid())) == set()
        assert [await run(conn, 'echo $PPID') for conn in (held, idle)] == servers


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pool_can_be_used_again_by_another_event_loop(manager: Manager, sshd: OpenSshServer) -> None:
    before = open_descriptors()
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection('main') as conn:
            assert await run(conn, 'echo hello') == 'hello'

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    gc.collect()
    assert open_descriptors() == before
    eventually(lambda: sshd.connections() == 0)
