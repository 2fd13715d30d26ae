"""A plugin of coverage for the compiled core.

That of Cython, but for two things. It knows inline functions of ``.pxd`` files only by luck: their lines are in the C
files of all modules that use them, and which of them can be executed is the union. And at each line it runs Python
code, in which the interpreter serves signals and passes the GIL on, right in the midst of an operation of the core:
here, Python code runs only when a file is met for the first time.
"""

import operator
import os
from pathlib import Path
from typing import Any, Dict

from coverage.plugin import FileTracer
from Cython.Coverage import Plugin, _find_dep_file_path


class Lines(FileTracer):
    """Says that the lines of a file are those of its frames.

    :param path: the file
    """

    #: what is called at each line; no Python code
    line_number_range = operator.attrgetter('f_lineno', 'f_lineno')

    def __init__(self, path: str):
        self._path = path

    def source_filename(self) -> str:
        return self._path


class InlinedPlugin(Plugin):
    """Reads all C files of the package before anything else."""

    def _read_all(self, filename: str) -> None:
        if self._c_files_map is not None:
            return
        self._c_files_map: Dict[str, Any] = {}
        self._parsed_c_files = {}
        for c_file in sorted(map(str, Path(filename).parent.glob('*.c'))):
            for name, lines in self._parse_cfile_lines(c_file).items():
                # the line that defines an inline function runs nowhere: it has no call to trace
                code = {number: line for number, line in lines.items() if not line.lstrip().startswith('cdef inline')}
                path = _find_dep_file_path(c_file, name, relative_path_search=True)
                _, _, known = self._c_files_map.get(path, (None, None, {}))
                self._c_files_map[path] = (c_file, name, {**known, **code})

    def _read_source_lines(self, c_file: str, sourcefile: str) -> Any:
        return self._c_files_map[sourcefile][1:] if sourcefile in self._c_files_map else (None, None)

    def file_tracer(self, filename: str) -> Any:
        path = os.path.abspath(filename)
        if f'{os.sep}_cpool{os.sep}' not in path or not path.endswith(('.pyx', '.pxd')):
            return None
        return Lines(path)

    def file_reporter(self, filename: str) -> Any:
        self._read_all(os.path.abspath(filename))
        return super().file_reporter(filename)


def coverage_init(registry: Any, options: Any) -> None:
    plugin = InlinedPlugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
