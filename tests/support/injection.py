"""Has something happen in the middle of somebody else's code: between any two of its bytecodes, one after the other.

What may happen there in real life: a signal handler that raises, a finalizer, a switch to another thread. Not at the end
of a handler, where the interpreter forgets the exception: what is raised there would be told that exception for ever.
"""

import dis
import gc
import pathlib
import sys
from types import FrameType
from typing import Any, Callable, Tuple

import generic_connection_pool

PACKAGE = pathlib.Path(generic_connection_pool.__file__).parent
#: the Python code of the threads pool but for its core
FACADE = tuple(map(str, [*(PACKAGE / 'threading').glob('*.py'), PACKAGE / 'common.py']))
#: the core in pure Python; no bytecode of it runs when the compiled one is in use
CORE = tuple(map(str, (PACKAGE / '_pycore').glob('*.py')))

#: what counts as a step: a bytecode; from 3.12 on a line, because there ``f_trace_opcodes`` comes into force too late
STEP = 'opcode' if sys.version_info < (3, 12) else 'line'
#: the end of a handler
POP_EXCEPT = dis.opmap['POP_EXCEPT']
#: steps that a test worth its name passes at the least
FEW = 20 if STEP == 'opcode' else 1


class Injection:
    """Runs an action before the n-th bytecode that is executed in some files within the block, in this thread.

    What the action raises, the code raises there. The action itself is not traced. The garbage collector rests meanwhile,
    because the finalizers that it would run are not what the block is about.
    """

    def __init__(self, place: int, action: Callable[[], Any], files: Tuple[str, ...] = FACADE):
        self.place = place
        self.action = action
        self.files = files
        self.seen = 0
        #: where it happened
        self.where = ''

    @property
    def happened(self) -> bool:
        return self.seen >= self.place

    def __enter__(self) -> 'Injection':
        self._before = sys.gettrace()
        gc.disable()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self._before)
        gc.enable()

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self.files or frame.f_code.co_name == '__del__':
            return None
        if STEP == 'opcode':
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return self._trace_step

    def _trace_step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == STEP and not self.happened and frame.f_code.co_code[frame.f_lasti] != POP_EXCEPT:
            self.seen += 1
            if self.happened:
                self.where = f'{pathlib.Path(frame.f_code.co_filename).name}:{frame.f_lineno}, byte {frame.f_lasti}'
                self.action()
        return self._trace_step


def everywhere(
    scenario: Callable[[Callable[[Callable[[], Any]], Injection]], None],
    files: Tuple[str, ...] = FACADE,
    at_most: int = 10_000,
) -> int:
    """Run a scenario again and again, with something happening at one bytecode later each time, until it has ended first.

    :param scenario: gets a function that makes the injection of an action
    :param files: where it may happen
    :param at_most: at how many places at the most; if there are more, at some that are evenly spread
    :return: at how many places it happened
    """
    places = _run(scenario, files, sys.maxsize)
    step = 1 + places // at_most
    happened = 0
    for place in range(1, places + 1, step):
        happened += _run(scenario, files, place) >= place
    assert happened, 'it happened nowhere'
    return happened


def _run(scenario: Callable[[Callable[[Callable[[], Any]], Injection]], None], files: Tuple[str, ...], place: int) -> int:
    """Returns how many places have been passed."""
    made = []

    def inject(action: Callable[[], Any]) -> Injection:
        made.append(Injection(place, action, files))
        return made[-1]

    try:
        scenario(inject)
    except BaseException as exc:
        where = [injection.where for injection in made]
        raise AssertionError(f'with something happening at {where} (place {place}): {exc!r}') from exc
    return sum(injection.seen for injection in made)
