"""Environments in which the package is installed as a user has it: as a wheel of the present sources."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from running.interpreters import Interpreter
from running.jobs import ENVIRONMENTS, ROOT, Counts, Output

WHEEL_SOURCES = ('LICENSE', 'README.md', '_cpool', 'generic_connection_pool', 'pyproject.toml', 'setup.py', 'stubs')
NOT_SOURCES = shutil.ignore_patterns('__pycache__', '*.so', '*.pyd', '*.c', '.*')
SOURCE_SUFFIXES = ('.py', '.pyi', '.pyx', '.pxd', '.h', '.toml', '.md', '.typed', '')


def copy_sources(to: Path) -> None:
    """Copy what a wheel is built from: building in the checkout would leave files, and pick up old ones."""
    for name in WHEEL_SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=NOT_SOURCES)
        else:
            shutil.copy2(ROOT / name, to / name)


class Environment:
    """An environment under ``.venv/``. It is kept, and brought up to date when the sources have changed.

    :param interpreter: what it is made with
    :param extra: the optional dependencies to install
    :param name: its directory; by default the interpreter's label
    :param variables: for the processes that make it, such as ``CFLAGS``
    """

    def __init__(self, interpreter: Interpreter, extra: str, name: str = '', **variables: str):
        self.interpreter = interpreter
        self.extra = extra
        self.path = ENVIRONMENTS / (name or interpreter.label)
        self.variables = variables

    def executable(self, name: str) -> Path:
        return self.path / ('Scripts' if os.name == 'nt' else 'bin') / name

    @property
    def python(self) -> Path:
        return self.executable('python')

    def prepare(self, output: Output) -> Counts:
        """Bring it up to date.

        :raises StepFailed: the wheel cannot be built or installed
        """
        stamp = self.path / 'installed'
        wanted = self._fingerprint()
        if stamp.is_file() and stamp.read_text() == wanted:
            return Counts()
        stamp.unlink(missing_ok=True)
        if not self.executable('pip').exists():  # the last thing that is put there
            output.must_run(self.interpreter.path, '-m', 'venv', '--clear', self.path, **self.variables)
        pip = (self.python, '-m', 'pip', '--quiet', '--disable-pip-version-check')
        with tempfile.TemporaryDirectory() as scratch:
            sources, wheels = Path(scratch, 'sources'), Path(scratch, 'wheels')
            sources.mkdir()
            copy_sources(sources)
            output.must_run(*pip, 'wheel', '--no-deps', '--wheel-dir', wheels, sources, **self.variables)
            (wheel,) = wheels.glob('*.whl')
            # rather an older release of a tool than one that has to be compiled
            output.must_run(*pip, 'install', '--prefer-binary', f'{wheel}[{self.extra}]', **self.variables)
            # the version has not changed since the last time, so pip would leave the old one where it is
            output.must_run(*pip, 'install', '--no-deps', '--force-reinstall', wheel, **self.variables)
        stamp.write_text(wanted)
        return Counts()

    def _fingerprint(self) -> str:
        """Return a text that changes when the environment has to be brought up to date."""
        digest = hashlib.sha256(f'{self.interpreter.path} {self.extra} {sorted(self.variables.items())}'.encode())
        for name in WHEEL_SOURCES:
            top = ROOT / name
            for path in sorted(top.rglob('*')) if top.is_dir() else [top]:
                if path.suffix in SOURCE_SUFFIXES:
                    digest.update(str(path.relative_to(ROOT)).encode())
                    digest.update(path.read_bytes() if path.is_file() else b'')
        return digest.hexdigest()
