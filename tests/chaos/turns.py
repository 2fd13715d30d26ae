"""What all users have in common: the questions they ask, and what they make of the answers."""

import itertools
import random
import time

from chaos.ledger import Ledger

__all__ = ('Bored', 'Cut', 'Turn', 'whole_line')

#: seconds that a server takes for an answer at the most
LONGEST_ANSWER = 0.03
#: seconds that a user rests between its turns at the most
LONGEST_REST = 0.4

_numbers = itertools.count(1)


class Bored(Exception):
    """An error of the user's own."""


class Cut(ConnectionError):
    """The connection ended before the answer did."""


class Turn:
    """One use of a connection.

    :param ledger: where it is taken down
    :param kind: the name of the kind of pool
    :param dice: the user's random numbers
    """

    def __init__(self, ledger: Ledger, kind: str, dice: random.Random):
        self.ledger = ledger
        self.kind = kind
        self.dice = dice
        self.began = time.monotonic()
        #: seconds that the user waits for a connection, or for an answer
        self.patience = ledger.patience
        #: whether the user has had a query cancelled, and may be told so
        self.cancels = False
        ledger.asked(kind)

    def new_token(self) -> str:
        """Return a question that nobody has ever asked before."""
        return f'{self.kind.replace(" ", "")}-{next(_numbers)}'

    def questions(self) -> range:
        """As many as are asked on one connection."""
        return range(self.dice.choice((1, 1, 1, 2, 3)))

    def pause(self) -> float:
        """Return the seconds that the server is to take for the answer."""
        return self.dice.choice((0.0, self.dice.uniform(0.0, LONGEST_ANSWER)))

    def impatience(self) -> float:
        """Return a timeout that may strike in the middle of a question."""
        return self.dice.uniform(0.0005, LONGEST_ANSWER)

    def wants(self, share: float) -> bool:
        """Tell whether the user does something that it does in such a share of cases."""
        return self.dice.random() < share

    def acquire_timeout(self) -> float:
        """Return the seconds that the user waits for a connection: at times too few to connect."""
        return self.dice.uniform(0.0, 0.02) if self.wants(0.15) else self.patience

    def rest(self) -> float:
        """Return the seconds that the user does something else, before its next turn or attempt."""
        return self.dice.uniform(0.0, LONGEST_REST)

    def answered(self, question: str, answer: object) -> None:
        self.ledger.answered(self.kind, self.began, question, answer)

    def failed(self, exc: BaseException, expected: bool) -> None:
        self.ledger.failed(self.kind, self.began, exc, expected)


def question_line(token: str, pause: float) -> bytes:
    """Return the question as the question server wants it."""
    return f'{token} {int(pause * 1000)}\n'.encode()


def whole_line(data: bytes) -> bool:
    """Tell whether an answer is complete. What comes after its end counts as part of it, and will not match."""
    return data.endswith(b'\n')


def from_line(data: bytes) -> str:
    return data[:-1].decode()
