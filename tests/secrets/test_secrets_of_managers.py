"""No password that a ready-made manager was given is told by it, whatever fails: see ``test_secrets.py``."""

import asyncio
import importlib
import inspect
import pathlib
import sqlite3
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threads_pools
from support.mariadb import USER, MariadbServer, mariadb_server, missing_programs
from support.redis_server import find_programs, redis_server, scripted_server
from support.servers import refusing_port, silent_server
from support.witness import SECRET, Witness, witness

__all__ = ('witness',)

#: for each kind of manager, its module, the driver that it needs, and the name of the connect keyword for the host
KINDS: Dict[str, Tuple[str, str, str]] = {
    'redis': ('redis', 'redis', 'host'),
    'redis_async': ('redis_async', 'redis', 'host'),
    'pymysql': ('dbapi', 'pymysql', 'host'),
    'asyncmy': ('asyncmy', 'asyncmy', 'host'),
    'paramiko': ('paramiko', 'paramiko', 'hostname'),
    'asyncssh': ('asyncssh', 'asyncssh', 'host'),
}
#: keywords beside host and port, with which connecting fails in one way or another
BAD: Dict[str, List[Dict[str, Any]]] = {
    'redis': [
        {'password': SECRET}, {'username': SECRET, 'password': SECRET}, {'password': [SECRET]}, {'protocol': SECRET},
        {'client_name': SECRET, 'password': SECRET, 'protocol': 3}, {'no_such_keyword': 1, 'password': SECRET},
        {'port': SECRET}, {'host': [SECRET]}, {'ssl': SECRET}, {'ssl_password': SECRET}, {'retry': SECRET},
        {'ssl': True, 'ssl_password': SECRET, 'ssl_check_hostname': False}, {'socket_timeout': SECRET},
        {'ssl': True, 'ssl_cert_reqs': SECRET}, {'unix_socket_path': '/nowhere'}, {'credential_provider': SECRET},
    ],
    'mysql': [
        {'user': 'somebody', 'password': SECRET}, {'password': [SECRET]}, {'no_such_keyword': SECRET}, {'port': SECRET},
        {'user': SECRET, 'password': SECRET}, {'password': SECRET.encode()}, {'password': SECRET, 'charset': None},
        {'password': SECRET, 'connect_timeout': SECRET}, {'password': SECRET, 'ssl': {'ca': '/nowhere'}},
    ],
    'ssh': [
        {'username': 'somebody', 'password': SECRET}, {'password': [SECRET]}, {'passphrase': SECRET}, {'port': SECRET},
        {'no_such_keyword': SECRET, 'password': SECRET}, {'sock': SECRET}, {'port': 70_000, 'password': SECRET},
        {'password': SECRET, 'timeout': [SECRET]}, {'password': SECRET, 'login_timeout': [SECRET]},
    ],
}  # fmt: skip
#: what is given instead of keywords
WRONG: List[Any] = [
    SECRET, [SECRET], SECRET.encode(), {SECRET}, (SECRET, SECRET), lambda *_: SECRET, lambda *_: [SECRET],
    lambda *_: {5: SECRET}, lambda *_: {}, {5: SECRET},
]  # fmt: skip
URLS = [
    f'redis://somebody:{SECRET}@127.0.0.1:{{port}}/0', f'redis://:{SECRET}/x@127.0.0.1', f'redis://h:{SECRET}',
    f'rediss://somebody:{SECRET}@127.0.0.1:{{port}}', f'unix://somebody:{SECRET}@/nowhere/at/all', f'{SECRET}://h',
    f'redis://somebody:{SECRET}@127.0.0.1:{{port}}?db={SECRET}', f'redis://[{SECRET}@h',
]  # fmt: skip

kinds = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture(autouse=True)
def nobody_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)


def maker(kind: str) -> Callable[[Any], Any]:
    """Return what makes a manager of connect keywords, or skip the test."""
    module_name, driver_name, _ = KINDS[kind]
    driver = pytest.importorskip(driver_name, exc_type=ImportError)
    module = importlib.import_module(f'generic_connection_pool.contrib.{module_name}')
    make, = (getattr(module, name) for name in module.__all__ if name.endswith('ConnectionManager'))
    return (lambda parameters: make(driver, parameters)) if module_name == 'dbapi' else make


def group(kind: str) -> str:
    return {'pymysql': 'mysql', 'asyncmy': 'mysql', 'paramiko': 'ssh', 'asyncssh': 'ssh'}.get(kind, 'redis')


def at(kind: str, where: int, **more: Any) -> Dict[str, Any]:
    """Return connect keywords that lead to a port."""
    quiet: Dict[str, Dict[str, Any]] = {
        'asyncssh': {'config': None, 'agent_path': None, 'client_keys': None, 'known_hosts': None},
        'paramiko': {'allow_agent': False, 'look_for_keys': False},
    }
    return {KINDS[kind][2]: '127.0.0.1', 'port': where, **quiet.get(kind, {}), **more}


def listen_to(witness: Witness, make: Callable[[], Any], timeout: float = 5.0, endpoint: Any = 'main') -> bool:
    """Have a witness hear all that comes of acquiring a connection; tell whether there was one."""

    async def with_tasks(manager: Any) -> bool:
        asyncio.get_running_loop().set_debug(True)
        pool: Any = asyncio_pools.ConnectionPool(manager)
        witness.hear(manager, pool, pool.connection(endpoint))
        try:
            conn = await pool.acquire(endpoint, timeout)
            witness.hear(conn)
            await pool.release(conn, endpoint)
            return True
        except Exception as exc:
            witness.hear(exc)
            return False
        finally:
            await pool.close()

    def with_threads(manager: Any) -> bool:
        pool: Any = threads_pools.ConnectionPool(manager)
        witness.hear(manager, pool, pool.connection(endpoint))
        try:
            conn = pool.acquire(endpoint, timeout)
            witness.hear(conn)
            pool.release(conn, endpoint)
            return True
        except Exception as exc:
            witness.hear(exc)
            return False
        finally:
            pool.close()

    try:
        manager = make()
    except Exception as exc:
        witness.hear(exc)
        return False
    return asyncio.run(with_tasks(manager)) if inspect.iscoroutinefunction(manager.create) else with_threads(manager)


@kinds
def test_no_failed_connect_tells_a_keyword(kind: str, witness: Witness) -> None:
    make = maker(kind)
    for more in BAD[group(kind)]:
        if 'unix_socket_path' in more:
            parameters: Dict[str, Any] = {**more, 'password': SECRET}
        else:
            parameters = at(kind, refusing_port(), **more)
        assert not listen_to(witness, lambda: make({'main': parameters}))
        assert not listen_to(witness, lambda: make({'main': lambda *_: parameters, 'other': lambda *_: SECRET}))
        assert not listen_to(witness, lambda: make({'main': parameters}), endpoint='unknown')


@kinds
def test_parameters_of_a_wrong_kind_are_refused_without_telling_them(kind: str, witness: Witness) -> None:
    make = maker(kind)
    for wrong in WRONG:
        for parameters in (wrong, {'main': wrong}, {'main': at(kind, refusing_port(), password=wrong, nonsense=1)}):
            assert not listen_to(witness, lambda: make(parameters))


@kinds
def test_no_server_that_keeps_silent_has_a_keyword_told(kind: str, witness: Witness) -> None:
    make = maker(kind)
    with silent_server() as (_, port):
        parameters = at(kind, port, password=SECRET)
        assert not listen_to(witness, lambda: make({'main': parameters}), timeout=0.2)


@pytest.mark.parametrize('kind', ['redis', 'redis_async'])
def test_no_failure_tells_of_a_url(kind: str, witness: Witness) -> None:
    make = maker(kind)
    for url in URLS:
        located = url.replace('{port}', str(refusing_port()))
        assert not listen_to(witness, lambda: make({'main': located}))
        assert not listen_to(witness, lambda: make({'main': lambda: located}))


@pytest.mark.parametrize('protocol', [2, 3])
@pytest.mark.parametrize('kind', ['redis', 'redis_async'])
def test_no_server_that_repeats_what_it_is_told_is_repeated(kind: str, protocol: int, witness: Witness) -> None:
    make = maker(kind)
    with scripted_server(lambda data: [b'-ERR ' + data.replace(b'\r\n', b' ') + b'\r\n']) as where:
        parameters = {**where, 'username': SECRET, 'password': SECRET, 'protocol': protocol, 'client_name': SECRET}
        assert not listen_to(witness, lambda: make({'main': parameters}))


@pytest.mark.parametrize('kind', ['redis', 'redis_async'])
def test_no_redis_server_has_a_password_told(kind: str, witness: Witness) -> None:
    make = maker(kind)
    program = next(iter(find_programs().values()), None)
    if program is None:
        pytest.skip('there is neither redis-server nor valkey-server')
    with redis_server(program) as server:
        server.ask('ACL', 'SETUSER', 'somebody', 'on', f'>{SECRET}', 'allcommands', 'allkeys')
        for wrong in (
            {'username': 'somebody', 'password': SECRET + 'x'}, {'username': SECRET, 'password': SECRET},
            {'username': 'somebody', 'password': SECRET, 'db': 10_000},
        ):  # fmt: skip
            assert not listen_to(witness, lambda: make({'main': server.parameters(**wrong)}))
        parameters = server.parameters(username='somebody', password=SECRET)
        assert listen_to(witness, lambda: make({'main': parameters}))
        assert listen_to(witness, lambda: make({'main': lambda: f'redis://somebody:{SECRET}@127.0.0.1:{server.port}'}))


@pytest.fixture(scope='module')
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    pytest.importorskip('pymysql', exc_type=ImportError)
    if missing_programs():
        pytest.skip(f'no MariaDB server to be had: {", ".join(missing_programs())} not found')
    with mariadb_server(tmp_path_factory.mktemp('m')) as server:
        server.query(f"SET PASSWORD FOR '{USER}'@'127.0.0.1' = PASSWORD('{SECRET}')")
        yield server


@pytest.mark.parametrize('kind', ['pymysql', 'asyncmy'])
def test_no_mariadb_server_has_a_password_told(kind: str, mariadb: MariadbServer, witness: Witness) -> None:
    make = maker(kind)
    assert not listen_to(witness, lambda: make({'main': mariadb.parameters(password=SECRET + 'x')}))
    assert not listen_to(witness, lambda: make({'main': mariadb.parameters(user=SECRET, password=SECRET)}))
    assert not listen_to(witness, lambda: make({'main': mariadb.parameters('nowhere', password=SECRET)}))
    assert not listen_to(
        witness, lambda: make({'main': mariadb.parameters(password=SECRET, init_command=f"SELECT '{SECRET}' FROM")})
    )
    assert listen_to(witness, lambda: make({'main': mariadb.parameters(password=SECRET)}))


@pytest.mark.parametrize('kind', ['paramiko', 'asyncssh'])
def test_no_ssh_server_has_a_password_told(kind: str, tmp_path: pathlib.Path, witness: Witness) -> None:
    make = maker(kind)
    asyncssh = pytest.importorskip('asyncssh', exc_type=ImportError)
    in_process_server = importlib.import_module('support.ssh_in_process').in_process_server
    key = asyncssh.generate_private_key('ssh-ed25519')
    key.write_private_key(str(tmp_path / 'host_key'))
    with in_process_server(tmp_path / 'host_key') as server:
        known = tmp_path / 'known_hosts'
        known.write_text(f'[127.0.0.1]:{server.port} {key.export_public_key().decode()}')
        server.passwords['ali'] = SECRET
        module = importlib.import_module(f'generic_connection_pool.contrib.{kind}')

        def manager(path: pathlib.Path = known, **more: Any) -> Any:
            parameters = at(kind, server.port, username='ali', **more)
            parameters.pop('known_hosts', None)
            return module.SshConnectionManager({'main': parameters}, known_hosts=path)

        assert not listen_to(witness, lambda: manager(password=SECRET + 'x'))
        assert not listen_to(witness, lambda: manager(tmp_path / 'nobody', password=SECRET))
        assert listen_to(witness, lambda: manager(password=SECRET))
    assert make is module.SshConnectionManager


def test_no_mail_server_has_credentials_told(witness: Witness) -> None:
    pytest.importorskip('aiosmtpd', exc_type=ImportError)
    servers_smtp = importlib.import_module('support.servers_smtp')
    module = importlib.import_module('generic_connection_pool.contrib.smtp')

    def manager(port: int, credentials: Any, **more: Any) -> Any:
        server = module.SmtpServer('127.0.0.1', port, **{'security': 'plain', 'credentials': credentials, **more})
        witness.hear(server)
        return module.SmtpConnectionManager({'main': server})

    right = ('somebody', SECRET)
    for credentials in (
        right, list(right), (SECRET, SECRET), SECRET, [SECRET], (SECRET, 5), {'main': SECRET}, lambda _: SECRET,
        lambda _: [SECRET], lambda _: right,
    ):  # fmt: skip
        for security in ('plain', 'starttls', 'tls'):
            assert not listen_to(witness, lambda: manager(refusing_port(), credentials, security=security))
        assert not listen_to(witness, lambda: manager(0, credentials))
        assert not listen_to(witness, lambda: module.SmtpConnectionManager({'main': credentials}))
        assert not listen_to(witness, lambda: module.SmtpConnectionManager(credentials))
    with silent_server() as (_, port):
        assert not listen_to(witness, lambda: manager(port, right), timeout=0.2)
    with servers_smtp.mail_server(log_in=True) as server:
        assert not listen_to(witness, lambda: manager(server.port, right))
    greeting = b'250-hello\r\n250 AUTH PLAIN LOGIN\r\n'
    quoting = f'535 {SECRET} is not the password\r\n'.encode()
    with servers_smtp.scripted_server(EHLO=greeting, AUTH=quoting) as scripted:
        assert not listen_to(witness, lambda: manager(scripted.port, right))
    # the server that hears a password may say something else than yes or no
    with servers_smtp.scripted_server(EHLO=greeting, AUTH=f'421 {SECRET}\r\n'.encode()) as scripted:
        assert not listen_to(witness, lambda: manager(scripted.port, right))


@pytest.mark.parametrize('endpoint', [
    f'http://somebody:{SECRET}@127.0.0.1:{{port}}', f'http://127.0.0.1:{SECRET}', f'http://[{SECRET}@h', f'{SECRET}:@h',
    f'somebody:{SECRET}@h', ('http', f'somebody:{SECRET}@h', 80), ('http', 'h', SECRET), ('https', [SECRET], 443),
    f'https://{SECRET}@127.0.0.1', ('http', SECRET), [SECRET], f'{SECRET}://h',
])  # fmt: skip
def test_no_url_is_told_by_the_manager_of_http(endpoint: Any, witness: Witness) -> None:
    module = importlib.import_module('generic_connection_pool.contrib.http')
    for function in (module.HttpConnectionManager().create, module.origin):
        with pytest.raises((TypeError, ValueError)) as caught:
            function(endpoint)
        witness.hear(caught.value)
        assert SECRET.lower() not in str(caught.value).lower()


def test_no_keyword_for_sqlite_is_told(witness: Witness) -> None:
    module = importlib.import_module('generic_connection_pool.contrib.dbapi')
    for keywords in (
        {'database': ':memory:', 'password': SECRET}, {'database': ':memory:', 'isolation_level': [SECRET]},
        {'database': f'file:nowhere/at/all?key={SECRET}', 'uri': True}, {'password': SECRET},
    ):  # fmt: skip
        assert not listen_to(witness, lambda: module.DbConnectionManager(sqlite3, {'main': keywords}))
