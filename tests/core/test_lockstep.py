"""The two implementations driven in lockstep through random operations: they must answer alike, and keep every promise."""

import random
from typing import Callable, List, Tuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.core_actions import NAMES, Actions
from support.core_twins import CYTHON, PYTHON, compiled_core_is_missing
from support.core_world import Limits

TWINS = (PYTHON, PYTHON if compiled_core_is_missing() else CYTHON)

#: the long walks: how many, and their steps
WALKS = 40
STEPS = 200

#: ways to do something, the usual ones more often
WAYS = [0, 0, 0, 0, 1, 1, 2, 3, 4, 5]
INTERFERENCES = ['withdraw', 'find', 'alarm', 'idle', 'rare']
WISHES = ['idle', 'lent', 'join', 'join', 'leave']

CHOICE = st.integers(0, 1000)
NAME = st.sampled_from(NAMES)
HOW = st.sampled_from(WAYS)


class Lockstep(RuleBasedStateMachine):
    """Clients of three endpoints, whose keys collide, do what a facade may do, in any order."""

    @initialize(
        min_idle=st.integers(0, 2),
        max_size=st.integers(1, 3),
        total_max_size=st.integers(1, 4),
        idle_timeout=st.sampled_from([0.0, 5.0]),
        equal=st.booleans(),
    )
    def open(self, min_idle: int, max_size: int, total_max_size: int, idle_timeout: float, equal: bool) -> None:
        self.actions = Actions(TWINS, Limits(min_idle, max_size, total_max_size, idle_timeout, 20.0), equal)

    @rule(name=NAME, fast=st.booleans(), how=HOW)
    def arrive(self, name: str, fast: bool, how: int) -> None:
        self.actions.arrive(name, fast, how)

    @rule(choice=CHOICE, how=HOW)
    def go_on(self, choice: int, how: int) -> None:
        self.actions.go_on(choice, how)

    @rule(choice=CHOICE, how=HOW)
    def release(self, choice: int, how: int) -> None:
        self.actions.release(choice, how)

    @rule(choice=CHOICE)
    def dispose(self, choice: int) -> None:
        self.actions.dispose(choice)

    @rule(name=NAME)
    def hammer(self, name: str) -> None:
        self.actions.hammer(name)

    @rule(seconds=st.sampled_from([1.0, 4.0, 5.0, 16.0]), collect=st.booleans())
    def wait(self, seconds: float, collect: bool) -> None:
        self.actions.wait(seconds, collect)

    @rule(choice=CHOICE, what=st.sampled_from(INTERFERENCES), name=NAME)
    def interfere(self, choice: int, what: str, name: str) -> None:
        self.actions.interfere(choice, what, name)

    @rule(choice=CHOICE, what=st.sampled_from(WISHES), excused=st.integers(0, 2))
    def empty(self, choice: int, what: str, excused: int) -> None:
        self.actions.empty(choice, what, excused)

    def teardown(self) -> None:
        if hasattr(self, 'actions'):
            self.actions.end()


def walk(seed: int) -> None:
    """One long random walk."""
    draw = random.Random(seed)
    limits = Limits(draw.randint(0, 2), draw.randint(1, 3), draw.randint(1, 4), draw.choice([0.0, 5.0]), 20.0)
    actions = Actions(TWINS, limits, draw.random() < 0.3)
    steps: List[Tuple[int, Callable[[], object]]] = [
        (draw.choice([8, 14, 24]), lambda: actions.arrive(draw.choice(NAMES), draw.random() < 0.3, draw.choice(WAYS))),
        (24, lambda: actions.go_on(draw.randrange(1000), draw.choice(WAYS))),
        (12, lambda: actions.release(draw.randrange(1000), draw.choice(WAYS))),
        (12, lambda: actions.dispose(draw.randrange(1000))),
        (8, lambda: actions.wait(draw.choice([1.0, 4.0, 5.0, 16.0]), draw.random() < 0.5)),
        (6, lambda: actions.interfere(draw.randrange(1000), draw.choice(INTERFERENCES), draw.choice(NAMES))),
        (6, lambda: actions.empty(draw.randrange(1000), draw.choice(WISHES), draw.randrange(3))),
        (1, lambda: actions.hammer(draw.choice(NAMES))),
    ]
    weights, choices = [weight for weight, _ in steps], [step for _, step in steps]
    for step in draw.choices(choices, weights, k=STEPS):
        step()
    actions.end()


def test_on_long_random_walks_both_implementations_answer_alike_and_keep_every_promise() -> None:
    for seed in random.sample(range(10**9), WALKS):
        try:
            walk(seed)
        except BaseException:
            print(f'to walk the same way again: walk({seed})')
            raise


def test_no_short_story_lets_the_two_implementations_differ_or_break_a_promise() -> None:
    bounds = settings(derandomize=False, deadline=None, max_examples=50, stateful_step_count=40)
    run_state_machine_as_test(Lockstep, settings=bounds)
