"""Which core is used: what the variable says, what is installed, and what is installed but broken."""

import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
from generic_connection_pool._switch import VARIABLE, pure_setting

# Isolated and without site-packages: neither the checkout nor an installed package can get in the way.
IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import generic_connection_pool
print(generic_connection_pool.core_implementation)
"""


def try_import(site: Path, value: Optional[str]) -> 'subprocess.CompletedProcess[str]':
    environ = {name: text for name, text in os.environ.items() if name != VARIABLE}
    if value is not None:
        environ[VARIABLE] = value
    return subprocess.run(
        [sys.executable, '-I', '-S', '-c', IMPORT, site],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def error(result: 'subprocess.CompletedProcess[str]') -> str:
    """Return the last line of the traceback."""
    assert result.returncode != 0, result.stdout
    return result.stdout.strip().splitlines()[-1]


def extension_module(site: Path, name: str) -> Path:
    (path,) = (path for path in site.glob(f'_cpool/{name}.*') if path.suffix in ('.so', '.pyd'))
    return path


def test_the_variable_has_two_values_and_may_be_unset() -> None:
    assert pure_setting({}) is None
    assert pure_setting({VARIABLE: '0'}) is False
    assert pure_setting({VARIABLE: '1'}) is True


@pytest.mark.parametrize('value', ['', ' ', '2', '00', '01', '1 ', '-1', 'true', 'yes', 'no', 'python', 'None'])
def test_any_other_value_is_an_error_that_names_the_variable_the_value_and_what_is_allowed(value: str) -> None:
    message = rf'^GENERIC_CONNECTION_POOL_PURE must be 0 .* 1 .* not set .*, not {re.escape(repr(value))}$'
    with pytest.raises(ValueError, match=message):
        pure_setting({VARIABLE: value})


def test_the_variable_is_read_from_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '1')
    assert pure_setting() is True
    monkeypatch.delenv(VARIABLE)
    assert pure_setting() is None


@pytest.mark.parametrize('value, core', [(None, 'cython'), ('0', 'cython'), ('1', 'python')])
def test_the_compiled_core_is_used_where_it_is_installed_unless_the_variable_is_1(
    compiled_site: Path, value: Optional[str], core: str
) -> None:
    result = try_import(compiled_site, value)
    assert (result.returncode, result.stdout.strip()) == (0, core)


@pytest.mark.parametrize('value', [None, '1'])
def test_the_pure_core_is_used_where_the_compiled_one_is_not_installed(pure_site: Path, value: Optional[str]) -> None:
    result = try_import(pure_site, value)
    assert (result.returncode, result.stdout.strip()) == (0, 'python')


def test_asking_for_a_compiled_core_that_is_not_installed_is_an_error_that_names_it(pure_site: Path) -> None:
    message = error(try_import(pure_site, '0'))
    assert message.startswith('ImportError')
    assert '_cpool' in message
    assert 'GENERIC_CONNECTION_POOL_PURE' in message


@pytest.mark.parametrize('value', [None, '0'])
@pytest.mark.parametrize('name', ['core', 'heap'])
def test_a_compiled_module_that_cannot_be_loaded_is_an_error_and_no_fallback(
    compiled_site: Path, value: Optional[str], name: str
) -> None:
    path = extension_module(compiled_site, name)
    path.write_bytes(b'garbage')
    message = error(try_import(compiled_site, value))
    assert message.startswith('ImportError')
    assert path.name in message


@pytest.mark.parametrize('value', [None, '0'])
@pytest.mark.parametrize('name', ['core', 'heap'])
def test_a_compiled_module_that_is_missing_is_an_error_that_names_it_and_no_fallback(
    compiled_site: Path, value: Optional[str], name: str
) -> None:
    extension_module(compiled_site, name).unlink()
    message = error(try_import(compiled_site, value))
    assert message.startswith('ImportError')
    assert f'_cpool.{name}' in message


def test_a_broken_compiled_core_does_no_harm_where_the_variable_is_1(compiled_site: Path) -> None:
    extension_module(compiled_site, 'core').write_bytes(b'garbage')
    result = try_import(compiled_site, '1')
    assert (result.returncode, result.stdout.strip()) == (0, 'python')


def test_a_lone_broken_module_is_an_error_and_no_fallback(pure_site: Path) -> None:
    (pure_site / '_cpool').mkdir()
    (pure_site / '_cpool' / f'core{importlib.machinery.EXTENSION_SUFFIXES[-1]}').write_bytes(b'garbage')
    assert error(try_import(pure_site, None)).startswith('ImportError')


@pytest.mark.parametrize('value', ['', '2'])
def test_importing_with_another_value_of_the_variable_is_an_error(pure_site: Path, value: str) -> None:
    message = error(try_import(pure_site, value))
    assert message.startswith('ValueError: GENERIC_CONNECTION_POOL_PURE')
