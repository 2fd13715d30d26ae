"""Random misuse of the classes of a core, which a user can reach though he should not: errors are fine, crashes not.

    python tests/fuzz/misuse.py cython 1 3000

runs 3000 calls with the seed 1. What is about to be called is written to standard error, so that a crash
tells its cause.
"""

import functools
import gc
import inspect
import pathlib
import random
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

__all__ = ('Misuse',)

#: classes by the module that has them
CLASSES = {
    'async_pool': ('AsyncCall', 'AsyncLease', 'AsyncPool'),
    'core': ('Core',),
    'heap': ('ExpiryHeap',),
    'lock': ('Parker',),
    'record': ('Record',),
    'store': ('Store',),
    'thread_pool': ('Lease', 'ThreadPool'),
    'waiters': ('Ticket',),
}
#: of object; and those that make or break a class
NOT_CALLED = {
    '__class__', '__del__', '__delattr__', '__dir__', '__getattribute__', '__getstate__', '__init_subclass__', '__new__',
    '__reduce__', '__reduce_ex__', '__setattr__', '__sizeof__', '__subclasshook__',
}  # fmt: skip
#: methods that sleep, with the arguments that keep them from it
IMPATIENT: Dict[str, Tuple[Any, ...]] = {'wait': (0,), 'park': (0,)}

Thing = Tuple[Any, str]

VALUES: List[Thing] = [
    (None, 'None'), (0, '0'), (1, '1'), (-1, '-1'), (2, '2'), (2**63, '2**63'), (2.5, '2.5'), (float('nan'), 'nan'),
    (float('inf'), 'inf'), ('a', "'a'"), (True, 'True'), ([], '[]'), (object, 'object'),
    (lambda *args, **kw: None, 'lambda'),
]  # fmt: skip


class Misuse:
    """Calls whatever there is with whatever there is.

    :param twin: which implementation
    :param choose: given a count, which of so many: 0 or more, less than the count
    :param tell: told what is about to be called
    """

    def __init__(self, twin: Any, choose: Callable[[int], int], tell: Callable[[str], object] = lambda text: None):
        self.choose = choose
        self.tell = tell
        self.things: List[Thing] = []
        self.count = 0
        self.calls = 0
        #: calls that were answered, not refused
        self.answered = 0
        names = [(module, name) for module in CLASSES for name in CLASSES[module] if twin.exposes(module, name)]
        self.classes = [twin.get(module, name) for module, name in names]
        self.methods = {cls: methods_of(cls) for cls in self.classes}
        self.core = twin.get('core', 'Core')

    def pick(self, things: List[Any]) -> Any:
        return things[self.choose(len(things))]

    def pick_value(self) -> Thing:
        value: Thing = self.pick(self.things if self.things and self.choose(2) else VALUES)
        return value

    def step(self) -> None:
        if len(self.things) < 3 or self.choose(6) == 0:
            self.make()
        else:
            self.use()
        if len(self.things) > 30:
            del self.things[self.choose(len(self.things))]

    def make(self) -> None:
        cls = self.pick(self.classes)
        if self.choose(3) == 0:
            return self.call(lambda: cls.__new__(cls), f'{cls.__name__}.__new__({cls.__name__})')
        arguments = [self.pick_value() for _ in range(self.choose(6))]
        if cls is self.core and self.choose(4):
            sizes = (self.choose(3), 1 + self.choose(2), 1 + self.choose(3))
            arguments = [(value, str(value)) for value in (*sizes, 1.0, 9.0)]
        self.call(lambda: cls(*(value for value, _ in arguments)), self.show(cls.__name__, arguments))

    def use(self) -> None:
        thing, name = self.pick(self.things)
        method = self.pick(self.methods[type(thing)])
        attribute = getattr(type(thing), method)
        if inspect.isdatadescriptor(attribute) and self.choose(3):
            value, shown = self.pick_value()
            return self.call(lambda: setattr(thing, method, value), f'{name}.{method} = {shown}')
        arity = arity_of(type(thing), method)
        arity = self.choose(3) if arity is None else arity
        arguments = [self.pick_value() for _ in range(arity - (arity > 1 and self.choose(5) == 0))]
        arguments = [(value, str(value)) for value in IMPATIENT[method]] if method in IMPATIENT else arguments
        self.call(lambda: self.evaluate(thing, method, arguments), self.show(f'{name}.{method}', arguments))

    def evaluate(self, thing: Any, method: str, arguments: List[Thing]) -> Any:
        attribute = getattr(thing, method)
        return attribute(*(value for value, _ in arguments)) if callable(attribute) else attribute

    def show(self, function: str, arguments: List[Thing]) -> str:
        return f'{function}({", ".join(shown for _, shown in arguments)})'

    def call(self, function: Callable[[], Any], shown: str) -> None:
        self.count += 1
        self.tell(f'v{self.count} = {shown}')
        self.calls += 1
        try:
            answer = function()
        except (Exception, GeneratorExit) as exc:  # anything but a crash will do
            self.tell(f'#   {type(exc).__name__}: {exc}')
            return
        self.answered += 1
        if type(answer) in self.methods:
            self.things.append((answer, f'v{self.count}'))

    def end(self) -> None:
        """Drop everything."""
        self.tell('# the end')
        self.things.clear()


@functools.lru_cache(maxsize=None)
def methods_of(cls: type) -> List[str]:
    return sorted(set(dir(cls)) - NOT_CALLED)


@functools.lru_cache(maxsize=None)
def arity_of(cls: type, method: str) -> Optional[int]:
    try:
        return len(inspect.signature(getattr(cls, method)).parameters) - 1
    except (TypeError, ValueError):
        return None


def main(name: str, seed: int, steps: int) -> None:
    """Misuse one implementation, in a process of its own."""
    from support.core_twins import CYTHON, PYTHON

    def tell(text: str) -> None:
        sys.stderr.write(text + '\n')
        sys.stderr.flush()

    misuse = Misuse({'cython': CYTHON, 'python': PYTHON}[name], random.Random(seed).randrange, tell)
    for _ in range(steps):
        misuse.step()
        if misuse.count % 500 == 0:
            gc.collect()
    misuse.end()
    gc.collect()
    print(misuse.calls, misuse.answered)


if __name__ == '__main__':
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
