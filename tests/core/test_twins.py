"""The two implementations are the same on paper too: modules, names, and what the methods take, stubs included."""

import ast
import importlib
import inspect
import pathlib
from typing import Any, Dict, List, Tuple

import pytest
from generic_connection_pool._switch import COMPILED_MODULES
from support.core_twins import CYTHON, PYTHON, Twin, all_twins, compiled_core_is_missing

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / '_cpool'
STUBS = ROOT / 'stubs' / '_cpool'
PURE = ROOT / 'generic_connection_pool' / '_pycore'

#: what Python cannot see of the compiled core: structures and functions in C
ONLY_C = {
    'lock': {'Mutex', 'critical'},
    'policy': {'Policy', 'Tickets'},
    'waiters': {'Ring', 'WaitQueue'},
    'invariants': {'check_invariants'},
}
#: what Python has of its own accord: coroutine objects
ONLY_COMPILED = {'async_pool': {'AsyncCall'}}
COROUTINE = {'__await__', '__iter__', '__name__', '__next__', '__qualname__', 'close', 'send', 'throw'}

MODULES = sorted(path.stem for path in SOURCES.glob('*.pyx'))

needs_compiled = pytest.mark.skipif(compiled_core_is_missing(), reason='the compiled core is not installed')


def names_of_all(tree: ast.Module) -> List[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '__all__':
            return list(ast.literal_eval(node.value))
        if isinstance(node, ast.AnnAssign) and getattr(node.target, 'id', None) == '__all__':
            return []
    raise AssertionError('no __all__')


def parameters_of(function: ast.FunctionDef) -> List[Tuple[str, bool]]:
    """The names of the parameters, and whether they have a default."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    required = len(names) - len(function.args.defaults)
    return [(name, index >= required) for index, name in enumerate(names)]


def parameters(function: Any) -> List[Tuple[str, bool]]:
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default is not parameter.empty) for parameter in found]


def defaults(function: Any) -> List[Any]:
    return [parameter.default for parameter in inspect.signature(function).parameters.values()]


def stub_of(module: str) -> ast.Module:
    return ast.parse((STUBS / f'{module}.pyi').read_text())


def stub_classes(module: str) -> Dict[str, Dict[str, ast.stmt]]:
    """The members of each class in a stub, in their order."""
    classes = {}
    for node in stub_of(module).body:
        if isinstance(node, ast.ClassDef):
            members: Dict[str, ast.stmt] = {}
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    members[member.name] = member
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    members[member.target.id] = member
            classes[node.name] = members
    return classes


def is_property(member: ast.stmt) -> bool:
    if not isinstance(member, ast.FunctionDef):
        return True
    return any(isinstance(decorator, ast.Name) and decorator.id == 'property' for decorator in member.decorator_list)


CLASSES = [
    pytest.param(module, name, id=f'{module}.{name}')
    for module in MODULES
    for name in stub_classes(module)
    if name not in ONLY_COMPILED.get(module, ())
]


def test_the_switch_knows_all_compiled_modules() -> None:
    assert sorted(COMPILED_MODULES) == MODULES


@pytest.mark.parametrize('module', MODULES)
def test_each_compiled_module_has_its_twin_and_its_stub(module: str) -> None:
    assert (PURE / f'{module}.py').is_file()
    assert (STUBS / f'{module}.pyi').is_file()


def test_there_is_no_stub_without_a_module() -> None:
    assert {path.stem for path in STUBS.glob('*.pyi')} - {'__init__'} == set(MODULES)


@pytest.mark.parametrize('module', MODULES)
def test_both_have_the_same_public_names_but_for_what_is_said_here(module: str) -> None:
    pure = set(PYTHON.module(module).__all__)
    expected = (pure - ONLY_C.get(module, set())) | ONLY_COMPILED.get(module, set())
    assert set(names_of_all(stub_of(module))) == expected
    source = ast.parse(f'__all__ = {(SOURCES / f"{module}.pyx").read_text().split("__all__ = ")[1].split(")")[0]})')
    assert set(names_of_all(source)) == expected


@needs_compiled
@pytest.mark.parametrize('module', MODULES)
def test_both_have_the_same_constants(module: str) -> None:
    def constants(twin: Twin) -> Dict[str, int]:
        values = {name: getattr(twin.module(module), name, None) for name in PYTHON.module(module).__all__}
        return {name: value for name, value in values.items() if isinstance(value, int)}

    assert constants(CYTHON) == constants(PYTHON)


@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_what_the_stub_says_of_a_class_is_true_of_the_pure_one(module: str, name: str) -> None:
    pure = PYTHON.get(module, name)
    assigned = (PURE / f'{module}.py').read_text()
    for member_name, member in stub_classes(module)[name].items():
        if member_name in COROUTINE or member_name == '__class_getitem__':
            continue
        if is_property(member):
            is_there = hasattr(pure, member_name) or f'self.{member_name}' in assigned or inherits(pure, member_name)
            assert is_there, f'{name} has no attribute {member_name}'
        elif isinstance(member, ast.FunctionDef):
            assert parameters(getattr(pure, member_name)) == parameters_of(member), f'{name}.{member_name}'


def inherits(cls: type, attribute: str) -> bool:
    """Whether a class of the pure core sets an attribute in a constructor that it has from another module."""
    sources = [inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith(PYTHON.package)]
    return any(f'self.{attribute}' in source for source in sources)


@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_the_methods_stand_in_the_same_order(module: str, name: str) -> None:
    mine = [key for key, member in stub_classes(module)[name].items() if not is_property(member)]
    pure = [key for key in vars(PYTHON.get(module, name)) if key in mine]
    assert [key for key in mine if key in pure] == pure


@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_each_public_method_of_the_pure_class_is_in_the_stub(module: str, name: str) -> None:
    pure = PYTHON.get(module, name)
    public = {key for key, value in vars(pure).items() if not key.startswith('_') and inspect.isfunction(value)}
    assert public <= set(stub_classes(module)[name])


@needs_compiled
@pytest.mark.parametrize('module', MODULES)
def test_the_stub_has_the_names_that_the_compiled_module_has(module: str) -> None:
    assert set(importlib.import_module(f'{CYTHON.package}.{module}').__all__) == set(names_of_all(stub_of(module)))


@needs_compiled
@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_the_stub_tells_all_of_the_compiled_class_and_nothing_else(module: str, name: str) -> None:
    compiled = CYTHON.get(module, name)
    members = stub_classes(module)[name]
    for member in members:
        assert hasattr(compiled, member), f'the compiled {name} has no {member}'
    public = {key for key in vars(compiled) if not key.startswith('_')}
    assert public <= set(members)


@needs_compiled
@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_both_take_the_same_parameters_with_the_same_defaults(module: str, name: str) -> None:
    compiled, pure = CYTHON.get(module, name), PYTHON.get(module, name)
    methods = [key for key, value in vars(pure).items() if inspect.isfunction(value) and not key.startswith('_')]
    for method in methods:
        assert parameters(getattr(compiled, method)) == parameters(getattr(pure, method)), f'{name}.{method}'
        assert defaults(getattr(compiled, method)) == defaults(getattr(pure, method)), f'{name}.{method}'


@needs_compiled
@pytest.mark.parametrize(('module', 'name'), CLASSES)
def test_both_are_documented_alike(module: str, name: str) -> None:
    compiled, pure = CYTHON.get(module, name), PYTHON.get(module, name)
    for method in [key for key, value in vars(pure).items() if inspect.isfunction(value) and not key.startswith('_')]:
        assert inspect.getdoc(getattr(compiled, method)) == inspect.getdoc(getattr(pure, method)), f'{name}.{method}'


@needs_compiled
@pytest.mark.parametrize('module', MODULES)
def test_both_have_the_same_constants(module: str) -> None:
    for name in set(PYTHON.module(module).__all__) - ONLY_C.get(module, set()):
        if isinstance(PYTHON.get(module, name), int):
            assert CYTHON.get(module, name) == PYTHON.get(module, name), name


@pytest.mark.parametrize('twin', all_twins())
@pytest.mark.parametrize(('module', 'name'), [('record', 'Record'), ('waiters', 'Ticket'), ('heap', 'ExpiryHeap')])
def test_a_mistyped_attribute_is_an_error_with_either(twin: Twin, module: str, name: str) -> None:
    arguments = ('conn', 'key', 0.0, 1.0) if name == 'Record' else ()
    thing = twin.get(module, name)(*arguments)
    with pytest.raises(AttributeError):
        thing.no_such_attribute = 1
