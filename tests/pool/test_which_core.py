"""Which core a pool has, as far as one process can tell; the rest is in tests/packaging."""

import importlib.util

import pytest
from generic_connection_pool import _core
from generic_connection_pool._switch import VARIABLE, pure_setting


def test_without_the_variable_it_is_the_compiled_one_if_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert pure_setting() is None
    installed = importlib.util.find_spec('_cpool') is not None and importlib.util.find_spec('_cpool.core') is not None
    assert _core._use_compiled() is installed


def test_without_the_variable_it_is_the_pure_one_if_no_other_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert _core._use_compiled() is False


@pytest.mark.parametrize('value, compiled', [('0', True), ('1', False)])
def test_with_it_it_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, value: str, compiled: bool) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert _core._use_compiled() is compiled


def test_another_value_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, 'yes')
    with pytest.raises(ValueError, match=VARIABLE):
        _core._use_compiled()
