"""The tests can fail: no assertion that holds whatever happens."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob('*.py'))


def idle(tree):
    """Lines of assertions that cannot fail, or that an empty list would pass."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assert):
            continue
        # assert a, b == c: the comparison is the message.
        if isinstance(node.msg, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield node.lineno, 'the second part of an assertion is its message'
        if isinstance(node.test, ast.Tuple) and node.test.elts:
            yield node.lineno, 'a tuple is always true'
        if isinstance(node.test, ast.Constant) and node.test.value:
            yield node.lineno, 'a constant is always true'
        for call in ast.walk(node.test):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id in ('all', 'any')
                and call.args
                and isinstance(call.args[0], ast.List | ast.Tuple)
                and not call.args[0].elts
            ):
                yield node.lineno, 'all() of nothing'
        if _is_filtered(node.test):
            yield node.lineno, 'the filter may leave all() nothing: compare the lists'


def _is_filtered(node):
    """Whether it is all() of a comprehension with a condition."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'all'
        and isinstance(node.args[0], ast.GeneratorExp | ast.ListComp)
        and any(part.ifs for part in node.args[0].generators)
    )


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_assertion_is_idle(path):
    assert list(idle(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    'line',
    [
        *('assert a, b == c', 'assert a, not b', 'assert (a, b)', 'assert 1', 'assert all([])'),
        'assert all(a for a in b if c)',
    ],
)
def test_idle_ones_are_found(line):
    assert len(list(idle(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    'line', ['assert a == b', 'assert a, f"{b}"', 'assert (a, b) == c', 'assert all(a for a in b)']
)
def test_others_are_not(line):
    assert list(idle(ast.parse(line))) == []
