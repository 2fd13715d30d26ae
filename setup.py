"""What pyproject.toml cannot say: whether the core is compiled, and how."""

import os
import runpy
from glob import glob

from setuptools import Extension, find_packages, setup
from setuptools.errors import CompileError

switch = runpy.run_path(os.path.join('generic_connection_pool', '_switch.py'))

DIRECTIVES = {
    'language_level': 3,
    'boundscheck': False,
    'wraparound': False,
    'initializedcheck': False,
    'cdivision': True,
    'auto_pickle': False,  # the classes hold locks and pointers; they refuse to be pickled either way
    'autotestdict': False,
    'freethreading_compatible': True,  # what holds without a GIL is said in _cpool/stripes.pxd
    'binding': True,  # so that inspect.signature() works on compiled methods, for stubtest and for users
}

# What the environment asks for comes first on the compiler's command line, and must not be overridden by this.
# Without debugging information the wheels are a fraction of the size.
COMPILE_ARGS = [] if os.name == 'nt' or 'CFLAGS' in os.environ else ['-O3', '-g0']


def compiled_core():
    """Return the arguments of ``setup()`` that compile the package ``_cpool``."""
    from setuptools.command.build_ext import build_ext  # imports Cython

    class BuildCore(build_ext):
        def initialize_options(self):
            super().initialize_options()
            self.parallel = True

        def run(self):
            try:
                from Cython.Build import cythonize

                translated = cythonize(self.extensions, build_dir=self.build_temp, compiler_directives=DIRECTIVES)
                for extension, result in zip(self.extensions, translated):
                    extension.sources = result.sources
                super().run()
            except Exception as exc:
                raise CompileError(
                    f'the compiled core cannot be built: {exc}\n'
                    f'It takes Cython and a C compiler. '
                    f'Set {switch["VARIABLE"]}=1 to install the pure-Python core alone.'
                ) from exc

    return {
        'ext_modules': [
            Extension(os.path.splitext(source)[0].replace(os.sep, '.'), [source], extra_compile_args=COMPILE_ARGS)
            for source in sorted(glob(os.path.join('_cpool', '*.pyx')))
        ],
        'cmdclass': {'build_ext': BuildCore},
        'package_dir': {'_cpool-stubs': os.path.join('stubs', '_cpool')},
    }


pure = switch['pure_setting']()
setup(
    packages=find_packages(include=['generic_connection_pool*']) + ([] if pure else ['_cpool', '_cpool-stubs']),
    package_data={'generic_connection_pool': ['py.typed'], '_cpool-stubs': ['*.pyi']},
    include_package_data=False,  # it would put the sources of the extension modules into the wheel
    **({} if pure else compiled_core()),
)
