"""Steps between any two lines of the library's own Python code."""

import dis
import linecache
import pathlib
import sys
from types import CodeType, FrameType
from typing import Any, Callable, Dict, Optional

import generic_connection_pool
from simulation.stage import Stage

__all__ = ('LineTracer',)

PACKAGE = pathlib.Path(generic_connection_pool.__file__).parent
CORE = str(PACKAGE / '_pycore')
FACADE = (str(PACKAGE / 'threading'), str(PACKAGE / 'common.py'))

#: the end of a handler
POP_EXCEPT = dis.opmap['POP_EXCEPT']

Local = Optional[Callable[..., Any]]


class LineTracer:
    """A trace function that has a stage step before each line.

    In the facade, an interrupt may come there too, if the thread has one to expect. Not in the pure core, whose own
    code is not safe from them.
    """

    def __init__(self, stage: Stage):
        self.stage = stage
        self._kinds: Dict[CodeType, Local] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> Local:
        if self.stage.inspecting:
            return None
        try:
            return self._kinds[frame.f_code]
        except KeyError:
            name = frame.f_code.co_filename
            kind: Local = None
            if name.startswith(FACADE):
                kind = self.step_or_burn
            elif name.startswith(CORE):
                kind = self.step
            self._kinds[frame.f_code] = kind
            return kind

    def renew(self) -> None:
        """Trace again: the interpreter stops tracing a thread when its trace function has raised."""
        sys.settrace(self)

    def step(self, frame: FrameType, event: str, arg: object) -> Local:
        if event == 'line':
            stage = self.stage
            stage.step('' if stage.choices.trace is None else _place(frame))
        return self.step

    def step_or_burn(self, frame: FrameType, event: str, arg: object) -> Local:
        if event == 'line':
            stage = self.stage
            stage.step('' if stage.choices.trace is None else _place(frame))
            if stage.running.fuse and not _is_safe(frame):
                stage.burn('between two lines')
        return self.step_or_burn


def _is_safe(frame: FrameType) -> bool:
    """Whether no signal is ever served here. At a bare ``try:`` the interpreter does nothing, and at the end of a
    handler it forgets the exception: it looks for signals at neither, and does not expect an exception.
    """
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return line == 'try:' or frame.f_code.co_code[frame.f_lasti] == POP_EXCEPT


def _place(frame: FrameType) -> str:
    return f'{frame.f_code.co_name}, line {frame.f_lineno} of {pathlib.Path(frame.f_code.co_filename).name}'
