"""HAZARD 43: an extension module that does not declare itself brings the GIL back for the whole process."""

import os
import subprocess
import sys
import sysconfig

import pytest
from generic_connection_pool._switch import COMPILED_MODULES

IMPORT = """
import importlib, sys
importlib.import_module(sys.argv[1])
assert not sys._is_gil_enabled(), 'the GIL is back'
"""


@pytest.mark.skipif(not sysconfig.get_config_var('Py_GIL_DISABLED'), reason='this interpreter always has a GIL')
@pytest.mark.parametrize('module', [f'_cpool.{name}' for name in COMPILED_MODULES] + ['generic_connection_pool'])
def test_importing_leaves_a_free_threaded_interpreter_without_a_gil(module: str) -> None:
    # -W error, since the interpreter warns when it enables the GIL; and nothing must have told it not to
    environ = {name: text for name, text in os.environ.items() if name != 'PYTHON_GIL'}
    result = subprocess.run(
        [sys.executable, '-W', 'error', '-c', IMPORT, module],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
