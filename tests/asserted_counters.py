"""Which counters tests assert to have counted, read from the tests' source.

A test may name a counter directly, through a name that it or its module gave it, or as a
parameter. An assertion that a counter did not count is none. Not for: running tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
_WAITS = frozenset({"until", "wait_until", "wait_for"})
"""Calls that fail the test when what they wait for does not come."""


def asserted_counters(folder: Path) -> dict[str, set[str]]:
    """The member names of ``Counter``, each with the tests that assert that it counted."""
    found: dict[str, set[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        text = file.read_text("utf-8")
        if "Count" not in text:
            continue  # most files: they take seconds to parse
        module = ast.parse(text)
        constants = {name: of for name, of in _assigned(module.body).items() if of}
        lines = text.split("\n")
        for function in ast.walk(module):
            if isinstance(function, Function) and function.name.startswith("test_"):
                first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
                own = "\n".join(lines[first - 1 : function.end_lineno])
                if "Count" not in own and not any(name in own for name in constants):
                    continue
                for counter in _asserted(function, constants):
                    found.setdefault(counter, set()).add(f"{file.name}::{function.name}")
    return found


def _asserted(function: Function, constants: dict[str, set[str]]) -> Iterator[str]:
    known = constants | _assigned(ast.walk(function))
    for decorator in function.decorator_list:
        counters = set(_counters(ast.walk(decorator), constants))
        for argument in function.args.args:
            known[argument.arg] = known.get(argument.arg, set()) | counters
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield from _counters(_positive(node.test), known)
        elif isinstance(node, ast.Call) and _name_of(node.func) in _WAITS:
            for argument in node.args:
                yield from _counters(_positive(argument), known)


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, set[str]]:
    """The counters in what each name is given."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = set(_counters(ast.walk(node.value), {}))
    return found


def _counters(nodes: Iterable[ast.AST], known: dict[str, set[str]]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and _name_of(node.value) in {"Counter", "Counted"}:
            yield node.attr
        elif isinstance(node, ast.Name):
            yield from known.get(node.id, ())


def _positive(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, without what is denied or compared with 0."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return
    if isinstance(node, ast.Compare) and (
        isinstance(node.ops[0], ast.NotIn)
        or any(isinstance(one, ast.Constant) and one.value == 0 for one in node.comparators)
        and not isinstance(node.ops[0], ast.Gt | ast.NotEq)
    ):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _positive(child)


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
