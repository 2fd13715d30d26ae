"""Fixtures for the tests of the ready-made managers: real servers, and a watch over file descriptors."""

import pathlib
import shutil
import tempfile
from typing import Iterator

import pytest
from support.certificates import Certificates
from support.mariadb import MariadbServer, mariadb_server, missing_programs
from support.servers import EchoServer, eventually, name_of_place, needs_ipv6, needs_unix, open_descriptors
from support.servers import tcp_echo_server, unix_echo_server
from support.sshd import OpenSshServer, ssh_server


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    """Fails any test that leaves a file descriptor open."""
    before = open_descriptors()
    yield
    eventually(lambda: open_descriptors() <= before, 'the closing of all file descriptors')


@pytest.fixture(autouse=True)
def no_session_of_an_earlier_test_goes_on(request: pytest.FixtureRequest) -> None:
    """A query that nobody waits for any more may run on for a while, and would be taken for that of the next test."""
    if 'postgres' in request.fixturenames:
        postgres = request.getfixturevalue('postgres')
        eventually(lambda: postgres.sessions() == 0, 'the end of all sessions')


@pytest.fixture(params=['127.0.0.1', pytest.param('::1', marks=needs_ipv6)])
def host(request: pytest.FixtureRequest) -> str:
    address: str = request.param
    return address


@pytest.fixture
def echo(host: str) -> Iterator[EchoServer]:
    with tcp_echo_server(host) as server:
        yield server


@pytest.fixture
def tls_echo(host: str, certificates: Certificates) -> Iterator[EchoServer]:
    with tcp_echo_server(host, certificates.server()) as server:
        yield server


@pytest.fixture
def short_directory() -> Iterator[pathlib.Path]:
    """A directory whose path leaves room in the address of a UNIX socket."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix='gcp-'))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=['127.0.0.1', pytest.param('::1', marks=needs_ipv6), pytest.param('unix', marks=needs_unix)])
def plain_echo(request: pytest.FixtureRequest, short_directory: pathlib.Path) -> Iterator[EchoServer]:
    """An echo server without encryption, over TCP or a UNIX socket."""
    where = request.param
    with unix_echo_server(str(short_directory / 'echo')) if where == 'unix' else tcp_echo_server(where) as server:
        yield server


@pytest.fixture(params=[
    ('127.0.0.1', False),
    ('127.0.0.1', True),
    pytest.param(('::1', True), marks=needs_ipv6),
    pytest.param(('unix', False), marks=needs_unix),
], ids=name_of_place)
def any_echo(request: pytest.FixtureRequest, short_directory: pathlib.Path) -> Iterator[EchoServer]:
    """An echo server of any kind, over TCP, TLS or a UNIX socket."""
    where, encrypts = request.param
    if where == 'unix':
        making = unix_echo_server(str(short_directory / 'echo'))
    else:
        making = tcp_echo_server(where, request.getfixturevalue('certificates').server() if encrypts else None)
    with making as server:
        yield server


@pytest.fixture(scope='session')
def mariadb() -> Iterator[MariadbServer]:
    """A server with no sessions of users. A test may restart it."""
    pytest.importorskip('pymysql', exc_type=ImportError)
    if missing_programs():
        pytest.skip(f'no MariaDB server to be had: {", ".join(missing_programs())} not found')
    with tempfile.TemporaryDirectory(prefix='gcp-mariadb-') as directory:
        with mariadb_server(pathlib.Path(directory)) as server:
            yield server


@pytest.fixture(scope='session')
def openssh() -> Iterator[OpenSshServer]:
    with ssh_server() as server:
        yield server


@pytest.fixture
def sshd(openssh: OpenSshServer) -> Iterator[OpenSshServer]:
    """OpenSSH's server, which runs and has no connections. A test may restart it."""
    yield openssh
    openssh.restore()
