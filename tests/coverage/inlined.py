"""A plugin of coverage: that of Cython, which knows inline functions of ``.pxd`` files only by luck.

Their lines are in the C files of all modules that use them; which of them can be executed is the union.
"""

import os
from pathlib import Path
from typing import Any, Dict

from Cython.Coverage import Plugin, _find_dep_file_path


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
        if f'{os.sep}_cpool{os.sep}' not in os.path.abspath(filename):
            return None
        self._read_all(os.path.abspath(filename))
        return super().file_tracer(filename)

    def file_reporter(self, filename: str) -> Any:
        self._read_all(os.path.abspath(filename))
        return super().file_reporter(filename)


def coverage_init(registry: Any, options: Any) -> None:
    plugin = InlinedPlugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
