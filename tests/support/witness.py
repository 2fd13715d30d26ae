"""Who hears all that is said, so that a test can tell whether a secret was among it."""

import gc
import io
import logging
import traceback
import warnings
from typing import Iterator, List

import pytest

__all__ = ('SECRET', 'SPELLINGS', 'Witness', 'witness')

#: what nobody is to hear
SECRET = 'Xq7-Wunderhorn-9z'
#: how it may also be spelled
SPELLINGS = (SECRET, SECRET.upper(), SECRET.replace('-', '%2D'), SECRET.split('-')[1])


class Witness:
    """Hears all that is said, to whomever."""

    def __init__(self) -> None:
        self.heard: List[str] = []
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(logging.Formatter('%(name)s %(levelname)s %(message)s %(args)s %(funcName)s'))

    def hear(self, *things: object) -> None:
        for thing in things:
            if isinstance(thing, BaseException):
                self.heard += [str(thing), repr(thing)]
                self.heard += traceback.format_exception(type(thing), thing, thing.__traceback__)
                cause = thing
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                    self.heard += [str(cause), repr(cause)]
            else:
                self.heard.append(repr(thing))

    def check(self) -> None:
        """Nobody has heard the secret."""
        said = [line for text in (*self.heard, self.stream.getvalue()) for line in text.splitlines()]
        for spelling in SPELLINGS:
            told = [line for line in said if spelling in line]
            assert not told, told


@pytest.fixture
def witness() -> Iterator[Witness]:
    made = Witness()
    root = logging.getLogger()
    level = root.level
    root.addHandler(made.handler)
    root.setLevel(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        yield made
        gc.collect()
        made.hear(*(str(warning.message) for warning in caught))
    root.setLevel(level)
    root.removeHandler(made.handler)
    made.check()
