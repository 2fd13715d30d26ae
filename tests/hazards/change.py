"""What putting a hazard back means: some text of the library is replaced, and some tests have to fail."""

from typing import NamedTuple, Tuple

__all__ = ('ASYNCIO', 'ASYNCIO_HOOKS', 'Change', 'PACKAGE', 'PURE', 'THREADS')

PACKAGE = 'generic_connection_pool/'
PURE = PACKAGE + '_pycore/'
THREADS = PACKAGE + 'threading/'
ASYNCIO = PACKAGE + 'asyncio/'
ASYNCIO_HOOKS = ASYNCIO + 'hooks.py'


class Change(NamedTuple):
    """One way to put a hazard back."""

    hazard: int
    #: what is wrong then
    what: str
    #: the file, from the root of the repository
    path: str
    #: what is replaced by what; each of the first must be in the file exactly once
    edits: Tuple[Tuple[str, str], ...]
    #: tests that have to fail, each after the letter of its directory: those of docs/guarantees.md
    tests: Tuple[str, ...]
