"""What is in the artefacts, and what happens where the core cannot be compiled."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Callable, Set

import pytest
from generic_connection_pool._switch import COMPILED_MODULES

Build = Callable[..., 'subprocess.CompletedProcess[str]']


def files(top: Path, *patterns: str) -> Set[str]:
    """Return the files under a directory of the checkout, relative to its parent."""
    return {path.relative_to(top.parent).as_posix() for pattern in patterns for path in top.rglob(pattern)}


def package_files(checkout: Path) -> Set[str]:
    return files(checkout / 'generic_connection_pool', '*.py', 'py.typed')


def contents(wheel: Path) -> Set[str]:
    """Return the names of the files in a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if '.dist-info/' not in name}


def metadata(wheel: Path) -> Set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition('.dist-info/')[2] for name in archive.namelist() if '.dist-info/' in name}


def test_the_compiled_modules_are_those_of_the_switch_and_each_has_a_stub(checkout: Path) -> None:
    assert tuple(sorted(path.stem for path in checkout.glob('_cpool/*.pyx'))) == COMPILED_MODULES
    assert {path.stem for path in checkout.glob('stubs/_cpool/*.pyi')} == {'__init__', *COMPILED_MODULES}


def test_a_compiled_wheel_holds_the_packages_the_extension_modules_and_the_stubs(
    checkout: Path, compiled_wheel: Path
) -> None:
    suffix = sysconfig.get_config_var('EXT_SUFFIX')
    expected = package_files(checkout) | files(checkout / '_cpool', '*.py')
    expected |= {f'_cpool/{name}{suffix}' for name in COMPILED_MODULES}
    expected |= {path.replace('_cpool', '_cpool-stubs') for path in files(checkout / 'stubs' / '_cpool', '*.pyi')}
    assert contents(compiled_wheel) == expected
    assert metadata(compiled_wheel) >= {'METADATA', 'RECORD', 'WHEEL', 'licenses/LICENSE'}


def test_a_compiled_wheel_is_for_one_version_of_python(compiled_wheel: Path) -> None:
    tag = 'cp%d%d' % sys.version_info[:2]
    abi = tag + ('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else '')
    assert f'-{tag}-{abi}-' in compiled_wheel.name


def test_a_pure_wheel_holds_no_trace_of_the_compiled_core(checkout: Path, pure_wheel: Path) -> None:
    assert contents(pure_wheel) == package_files(checkout)
    assert pure_wheel.name.endswith('-py3-none-any.whl')


def test_the_sdist_holds_all_sources_and_nothing_that_is_generated(checkout: Path, built_sdist: Path) -> None:
    with tarfile.open(built_sdist) as archive:
        names = {member.name.partition('/')[2] for member in archive.getmembers() if member.isfile()}
    expected = package_files(checkout)
    expected |= files(checkout / '_cpool', '*.py', '*.pyx', '*.pxd', '*.h')
    expected |= files(checkout / 'stubs', '*.pyi')
    expected |= files(checkout / 'tests', '*.py')
    for top in ('benchmarks', 'docs', 'examples'):
        expected |= {name for name in files(checkout / top, '*.*') if not name.endswith('.pyc')}
    expected |= {'CHANGELOG.md', 'LICENSE', 'MANIFEST.in', 'Makefile', 'README.md', 'pyproject.toml', 'setup.py'}
    assert expected - names == set()
    assert {name for name in names if name.endswith(('.c', '.so', '.pyd', '.pyc', '.o'))} == set()


@pytest.mark.skipif(os.name == 'nt', reason='the compiler on Windows is not chosen by a variable')
def test_a_compilation_that_fails_is_an_error_that_names_the_way_out(build: Build, tmp_path: Path) -> None:
    result = build(tmp_path, CC='/bin/false')
    assert result.returncode != 0
    assert 'the compiled core cannot be built' in result.stdout
    assert 'GENERIC_CONNECTION_POOL_PURE=1' in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_cython_is_an_error_that_names_the_way_out(
    build: Build, without_cython: Path, tmp_path: Path
) -> None:
    result = build(tmp_path, PYTHONPATH=str(without_cython))
    assert result.returncode != 0
    assert 'the compiled core cannot be built: Cython is not installed' in result.stdout
    assert 'GENERIC_CONNECTION_POOL_PURE=1' in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_build_with_another_value_of_the_variable_is_an_error(build: Build, tmp_path: Path) -> None:
    result = build(tmp_path, GENERIC_CONNECTION_POOL_PURE='yes')
    assert result.returncode != 0
    assert 'GENERIC_CONNECTION_POOL_PURE must be 0' in result.stdout
    assert list(tmp_path.iterdir()) == []
