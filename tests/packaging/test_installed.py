"""The package under test is the installed one, and its compiled modules tell their signatures."""

import importlib
import inspect
import os
from pathlib import Path
from typing import Callable, Iterator, Tuple

import generic_connection_pool
import pytest
from generic_connection_pool._switch import COMPILED_MODULES


def test_the_package_under_test_is_the_installed_one() -> None:
    prefix = os.environ.get('TESTED_PREFIX')
    if prefix is None:
        pytest.skip('only tests/run_all.py installs the package')
    assert Path(generic_connection_pool.__file__).is_relative_to(prefix)
    if generic_connection_pool.core_implementation == 'cython':
        for name in COMPILED_MODULES:
            module = importlib.import_module(f'_cpool.{name}')
            assert module.__file__ is not None
            assert Path(module.__file__).is_relative_to(prefix)


def compiled_methods() -> Iterator[Tuple[str, Callable[..., object]]]:
    for name in COMPILED_MODULES:
        for cls in vars(importlib.import_module(f'_cpool.{name}')).values():
            if inspect.isclass(cls) and cls.__module__ == f'_cpool.{name}':
                for attribute, member in vars(cls).items():
                    if not attribute.startswith('_') and callable(member):
                        yield f'{name}.{cls.__name__}.{attribute}', member


@pytest.mark.skipif(generic_connection_pool.core_implementation != 'cython', reason='needs the compiled core')
def test_every_public_compiled_method_tells_its_signature() -> None:
    found = dict(compiled_methods())
    assert len(found) >= len(COMPILED_MODULES)
    for method in found.values():
        inspect.signature(method)
