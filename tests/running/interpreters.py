"""Which interpreters there are to test with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional

from running.jobs import clean_environ

SUPPORTED = ('3.10', '3.11', '3.12', '3.13', '3.14')
#: names an interpreter without the global interpreter lock, which is tested with, too
FREE_THREADED = 'PYTHON_FREE_THREADED'

PROBE = """
import ensurepip, json, os, sys, sysconfig, venv
print(json.dumps({
    'executable': sys.executable,
    'version': '%d.%d' % sys.version_info[:2],
    'cpython': sys.implementation.name == 'cpython',
    'free_threaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    'headers': os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')),
}))
"""


class Interpreter(NamedTuple):
    """An interpreter that answers.

    :param label: its version, such as ``3.13``; with a ``t`` if it is free-threaded
    :param path: its executable
    :param free_threaded: whether it has no global interpreter lock
    :param usable: whether it is a supported CPython with its headers, ``venv`` and ``ensurepip``
    """

    label: str
    path: Path
    free_threaded: bool
    usable: bool


def examine(path: Path) -> Optional[Interpreter]:
    """Ask an interpreter what it is. A pyenv shim may be there and still not run: then ``None``."""
    if not path.is_file():
        return None
    try:
        answer = subprocess.run(
            [path, '-c', PROBE], env=clean_environ(), capture_output=True, check=True, timeout=60, text=True
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    free_threaded = facts['free_threaded']
    usable = facts['cpython'] and facts['headers'] and facts['version'] in SUPPORTED
    label = facts['version'] + ('t' if free_threaded else '')
    return Interpreter(label, Path(facts['executable']), free_threaded, usable)


def candidates() -> Iterator[Path]:
    """Yield where interpreters may be: on the PATH, in pyenv, and the one that runs this."""
    pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv')
    for version in SUPPORTED:
        for directory in os.get_exec_path():
            yield Path(directory, f'python{version}')
        yield from sorted(pyenv.glob(f'versions/{version}.*/bin/python{version}'), reverse=True)
    yield Path(sys.executable)


def find_interpreters() -> Dict[str, Interpreter]:
    """Return the first usable interpreter of each supported version, oldest first; the free-threaded one comes last.

    :raises LookupError: the environment names a free-threaded interpreter that cannot be used
    """
    found: Dict[str, Interpreter] = {}
    for path in candidates():
        interpreter = examine(path)
        if interpreter is not None and interpreter.usable and not interpreter.free_threaded:
            found.setdefault(interpreter.label, interpreter)
    found = {version: found[version] for version in SUPPORTED if version in found}
    named = os.environ.get(FREE_THREADED)
    if named:
        interpreter = examine(Path(named).absolute())
        if interpreter is None or not interpreter.usable or not interpreter.free_threaded:
            raise LookupError(f'{FREE_THREADED}={named} is no free-threaded CPython with its headers and venv')
        found[interpreter.label] = interpreter
    return found


def newest(interpreters: Dict[str, Interpreter]) -> Interpreter:
    """Return the newest interpreter, one with a global interpreter lock if there is any."""
    with_lock = [interpreter for interpreter in interpreters.values() if not interpreter.free_threaded]
    return (with_lock or list(interpreters.values()))[-1]
