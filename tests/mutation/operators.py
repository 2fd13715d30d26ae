"""What is changed in the code: the operators of cosmic-ray that tell something, and two of our own."""

import hashlib
from collections import Counter
from typing import Any, Iterator, List, NamedTuple, Tuple

import cosmic_ray.plugins
import parso.python.tree as tree
from cosmic_ray.ast import ast_nodes, get_ast

#: Which comparison is replaced by which: the two that no other test for a relational operator makes superfluous (the
#: negation of a whole condition, which AddNot makes, is the third). An ordering of objects raises TypeError wherever it
#: runs and small integers that are equal are identical: neither kind would tell anything of the tests.
COMPARISONS = {
    ('Lt', 'LtE'), ('Lt', 'NotEq'), ('LtE', 'Lt'), ('LtE', 'Eq'), ('Gt', 'GtE'), ('Gt', 'NotEq'), ('GtE', 'Gt'),
    ('GtE', 'Eq'), ('Eq', 'LtE'), ('Eq', 'GtE'), ('NotEq', 'Lt'), ('NotEq', 'Gt'), ('Is', 'IsNot'), ('IsNot', 'Is'),
}  # fmt: skip
#: one other arithmetical operator for each: nine for every plus sign are nine times the same question
ARITHMETIC = {('Add', 'Sub'), ('Sub', 'Add'), ('Mul', 'Add'), ('RShift', 'LShift')}


class DeleteStatement:
    """Replaces an assignment, call, ``return``, ``raise`` or ``assert`` within a function by ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[Tuple[Any, Any]]:
        if node.type == 'simple_stmt' and node.search_ancestor('funcdef') is not None:
            statement = node.children[0]
            if isinstance(statement, tree.Keyword):  # return, raise, break or pass, with nothing behind it
                interesting = statement.value in ('return', 'raise')
            else:
                interesting = statement.type in (
                    'expr_stmt', 'atom_expr', 'return_stmt', 'raise_stmt', 'assert_stmt', 'del_stmt', 'await_expr',
                )  # fmt: skip
            if interesting:
                yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        statement = node.children[0]
        node.children[0] = tree.Keyword('pass', statement.start_pos, prefix=statement.get_first_leaf().prefix)
        return node


class SwapAugmented:
    """Replaces ``+=`` by ``-=`` and the reverse."""

    SWAPPED = {'+=': '-=', '-=': '+='}

    def mutation_positions(self, node: Any) -> Iterator[Tuple[Any, Any]]:
        if isinstance(node, tree.Operator) and node.value in self.SWAPPED:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = self.SWAPPED[node.value]
        return node


OWN = {operator.__name__: operator for operator in (DeleteStatement, SwapAugmented)}


class Mutant(NamedTuple):
    """One change of one module."""

    key: str  #: the same in every run, as long as the function it is in stays as it is
    module: str  #: such as ``core``
    operator: str
    line: int
    node: Any
    index: int  #: which of the changes that the operator makes to the node


def _operators() -> Iterator[Tuple[str, Any]]:
    for full_name in cosmic_ray.plugins.operator_names():
        name = full_name.split('/')[1]
        cls = cosmic_ray.plugins.get_operator(full_name)
        kind, *which = name.split('_')
        if name == 'NoOp' or cls.arguments():
            continue
        if kind == 'ReplaceComparisonOperator' and tuple(which) not in COMPARISONS:
            continue
        if kind == 'ReplaceBinaryOperator' and tuple(which) not in ARITHMETIC:
            continue
        yield name, cls()
    yield from ((name, cls()) for name, cls in OWN.items())


OPERATORS = dict(_operators())


def mutants_of(module: str, source: str) -> List[Mutant]:
    """All changes of a module's source, in the order of its lines."""
    found = []
    seen: Counter[str] = Counter()
    for node in ast_nodes(get_ast(source)):
        within = node.search_ancestor('funcdef') or node.search_ancestor('simple_stmt') or node
        for name, operator in OPERATORS.items():
            for index, (start, _) in enumerate(operator.mutation_positions(node)):
                name_of = f'{module}:{_qualified_name(node)}:{name}:{_digest(within)}'
                key = f'{name_of}:{seen[name_of]}'
                seen[name_of] += 1
                found.append(Mutant(key, module, name, start[0], node, index))
    return sorted(found, key=lambda mutant: mutant.line)


def _qualified_name(node: Any) -> str:
    names = []
    while node is not None:
        if node.type in ('funcdef', 'classdef'):
            names.append(node.name.value)
        node = node.parent
    return '.'.join(reversed(names)) or '<module>'


def _digest(node: Any) -> str:
    return hashlib.sha256(node.get_code(include_prefix=False).encode()).hexdigest()[:8]


def apply(mutant: Mutant) -> str:
    """Make the change and return the source. The tree that the mutant is from is of no use any more."""
    root = mutant.node.get_root_node()
    changed = OPERATORS[mutant.operator].mutate(mutant.node, mutant.index)
    siblings = mutant.node.parent.children
    place = next(index for index, node in enumerate(siblings) if node is mutant.node)
    siblings[place : place + 1] = [] if changed is None else [changed]
    return str(root.get_code())
