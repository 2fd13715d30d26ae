"""The two implementations of the core, side by side in one process, whatever the switch says."""

import importlib
import importlib.util
from typing import Any, List

import pytest
from generic_connection_pool._switch import COMPILED_MODULES, pure_setting

__all__ = ('PYTHON', 'CYTHON', 'Twin', 'all_twins', 'compiled_core_is_missing', 'twins_of')


class Twin:
    """One of the two packages.

    :param name: what ``core_implementation`` says of it: the id of its tests
    :param package: its name
    """

    def __init__(self, name: str, package: str):
        self.name = name
        self.package = package

    def __repr__(self) -> str:
        return self.name

    def module(self, name: str) -> Any:
        return importlib.import_module(f'{self.package}.{name}')

    def get(self, module: str, name: str) -> Any:
        return getattr(self.module(module), name)

    def exposes(self, module: str, name: str) -> bool:
        """Whether Python code can see a class (in the compiled twin, some are C structures)."""
        if importlib.util.find_spec(f'{self.package}.{module}') is None:
            return False
        return hasattr(self.module(module), name)


PYTHON = Twin('python', 'generic_connection_pool._pycore')
CYTHON = Twin('cython', '_cpool')


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec('_cpool') is not None and importlib.util.find_spec(f'_cpool.{module}') is not None


def compiled_core_is_missing() -> bool:
    """Nothing of the compiled core is installed, and nobody has said that it must be."""
    return pure_setting() is not False and not any(map(_is_installed, COMPILED_MODULES))


def _cython_param() -> Any:
    marks = [pytest.mark.skip(reason='the compiled core is not installed')] if compiled_core_is_missing() else []
    return pytest.param(CYTHON, id=CYTHON.name, marks=marks)


def all_twins() -> List[Any]:
    """Parameters of a test that runs on both."""
    return [pytest.param(PYTHON, id=PYTHON.name), _cython_param()]


def twins_of(module: str, name: str) -> List[Any]:
    """Parameters of a test of one class, which the compiled twin need not show to Python."""
    if not compiled_core_is_missing() and not CYTHON.exposes(module, name):
        return [pytest.param(PYTHON, id=PYTHON.name)]
    return all_twins()
