"""Fixtures for the tests of the build: every artefact is built once, from a copy of the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Callable

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_A_CHECKOUT = shutil.ignore_patterns(
    '.git', '.venv', '.*_cache', '.hypothesis', '__pycache__', '*.egg-info', '*.so', '*.pyd', 'build', 'dist'
)

Build = Callable[..., 'subprocess.CompletedProcess[str]']


def run_python(*arguments: object, **environ: str) -> 'subprocess.CompletedProcess[str]':
    """Run this interpreter with these variables and none that chooses a core, or redirects imports."""
    dropped = ('GENERIC_CONNECTION_POOL', 'PYTHON')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**inherited, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture(scope='session')
def checkout() -> Path:
    if not (ROOT / 'pyproject.toml').is_file():
        pytest.skip('the tests do not run from a checkout')
    return ROOT


@pytest.fixture(scope='session')
def built_sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get('GENERIC_CONNECTION_POOL_PURE') == '1':
        pytest.skip('builds take long, and are tested in the run with the compiled core')
    pytest.importorskip('setuptools', '77')
    work = tmp_path_factory.mktemp('sdist')
    shutil.copytree(checkout, work / 'checkout', ignore=NOT_IN_A_CHECKOUT)
    result = run_python('-m', 'build', '--sdist', '--no-isolation', '--outdir', work / 'dist', work / 'checkout')
    assert result.returncode == 0, result.stdout
    (sdist,) = (work / 'dist').iterdir()
    return sdist


@pytest.fixture(scope='session')
def build(built_sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a wheel from the sdist, in the environment given, into a directory given."""

    def build(wheels: Path, **environ: str) -> 'subprocess.CompletedProcess[str]':
        sources = tmp_path_factory.mktemp('sources')
        with tarfile.open(built_sdist) as archive:
            archive.extraction_filter = getattr(tarfile, 'data_filter', None)  # without one there are warnings
            archive.extractall(sources)
        (unpacked,) = sources.iterdir()
        return run_python(
            '-m', 'pip', 'wheel', '--no-build-isolation', '--no-deps', '--no-index', '-w', wheels, unpacked, **environ
        )

    return build


@pytest.fixture(scope='session')
def without_cython(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that makes Cython seem not installed when it comes first on the path."""
    path = tmp_path_factory.mktemp('without_cython')
    (path / 'Cython.py').write_text('raise ImportError("Cython is not installed")')
    return path


@pytest.fixture(scope='session')
def compiled_wheel(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheels = tmp_path_factory.mktemp('compiled')
    result = build(wheels, CFLAGS='-O0')
    assert result.returncode == 0, result.stdout
    (wheel,) = wheels.iterdir()
    return wheel


@pytest.fixture(scope='session')
def pure_wheel(build: Build, without_cython: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built on a machine with neither Cython nor a compiler."""
    wheels = tmp_path_factory.mktemp('pure')
    result = build(wheels, GENERIC_CONNECTION_POOL_PURE='1', CC='/bin/false', PYTHONPATH=str(without_cython))
    assert result.returncode == 0, result.stdout
    (wheel,) = wheels.iterdir()
    return wheel


@pytest.fixture
def compiled_site(compiled_wheel: Path, tmp_path: Path) -> Path:
    """What the compiled wheel installs, for the test to spoil."""
    with zipfile.ZipFile(compiled_wheel) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture
def pure_site(pure_wheel: Path, tmp_path: Path) -> Path:
    """What the pure wheel installs, for the test to spoil."""
    with zipfile.ZipFile(pure_wheel) as archive:
        archive.extractall(tmp_path)
    return tmp_path
