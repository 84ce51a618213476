"""Small mistakes: for each kind of syntax the edits that make it say something else.

Each function gives the edits of one node. They need not make sense, nor even parse: whoever asks for them throws away
what does not.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence

from tools.mutation.source import Edit, Source

__all__ = ["OPERATORS", "deletions", "is_operator_name"]

Operator = Callable[[Source, ast.AST], Iterator[Edit]]
SMALL = 100
COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.In: (r"\bin\b", ("not in",)),
    ast.NotIn: (r"\bnot\s+in\b", ("in",)),
    ast.Is: (r"\bis\b", ("is not",)),
    ast.IsNot: (r"\bis\s+not\b", ("is",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: (r"\*\*", "*"),
    ast.BitOr: (r"\|", "&"),
}
SWAPPED_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Their arguments in the wrong order raise at once, in every test.
ORDERED = {"isinstance", "getattr", "hasattr", "field"}


def comparisons(source: Source, node: ast.AST) -> Iterator[Edit]:
    """`<` becomes `<=` and `>=`, `in` becomes `not in`, and so on."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            pattern, others = COMPARISONS[type(operator)]
            place = source.between(left, right, pattern)
            if place is not None:
                yield from (Edit(*place, other) for other in others)


def connectives(source: Source, node: ast.AST) -> Iterator[Edit]:
    """One `and` becomes `or`, one `or` becomes `and`."""
    if isinstance(node, ast.BoolOp):
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            place = source.between(left, right, rf"\b{word}\b")
            if place is not None:
                yield Edit(*place, other)


def signs(source: Source, node: ast.AST) -> Iterator[Edit]:
    """`not x` and `-x` become `x`."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        start, _ = source.span(node)
        yield Edit(start, source.span(node.operand)[0], "(" if _parenthesised(source, node.operand) else "")


def _parenthesised(source: Source, node: ast.AST) -> bool:
    return source.data[: source.span(node)[0]].rstrip().endswith(b"(")


def arithmetic(source: Source, node: ast.AST) -> Iterator[Edit]:
    """`+` becomes `-`, `*` becomes `/`, and so on; texts are left alone."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        pattern, other = ARITHMETIC[type(node.op)]
        place = source.between(node.left, node.right, pattern)
        if place is not None and not any(_is_text(x) for x in (node.left, node.right)):
            yield Edit(*place, other)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def constants(source: Source, node: ast.AST) -> Iterator[Edit]:
    """A small whole number becomes the next one, `True` becomes `False`."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield Edit(*source.span(node), str(not node.value))
        elif isinstance(node.value, int) and node.value < SMALL:
            yield Edit(*source.span(node), str(node.value + 1))


def conditions(source: Source, node: ast.AST) -> Iterator[Edit]:
    """What decides between two ways always says the same."""
    tests: Sequence[ast.expr] = ()
    if isinstance(node, (ast.If, ast.IfExp)):
        tests = (node.test,)
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        yield from (Edit(*source.span(test), always) for always in ("True", "False"))
    if isinstance(node, ast.While):  # that never ends is no mutant worth the wait
        yield Edit(*source.span(node.test), "False")


def keywords(source: Source, node: ast.AST) -> Iterator[Edit]:
    """A named argument is left out. `strict=` guards our own mistakes."""
    if isinstance(node, ast.Call):
        arguments = sorted([*node.args, *node.keywords], key=lambda x: (x.lineno, x.col_offset))
        for i, argument in enumerate(arguments):
            if isinstance(argument, ast.keyword) and argument.arg != "strict":
                yield _without(source, arguments, i)


def _without(source: Source, items: Sequence[ast.AST], i: int) -> Edit:
    """One item of several between commas goes, with a comma."""
    start, end = source.span(items[i])
    if i + 1 < len(items):
        return Edit(start, source.span(items[i + 1])[0], "")
    if i > 0:
        comma = source.between(items[i - 1], items[i], ",")
        return Edit(comma[0] if comma else start, end, "")
    return Edit(start, end, "")


def swapped_arguments(source: Source, node: ast.AST) -> Iterator[Edit]:
    """Two positional arguments change places."""
    if isinstance(node, ast.Call) and len(node.args) == 2 and not any(isinstance(x, ast.Starred) for x in node.args):
        first, second = node.args
        ordered = isinstance(node.func, ast.Name) and node.func.id in ORDERED
        if not ordered and not is_operator_name(source.of(first)):  # a list of operators has no order
            start, end = source.span(first)[0], source.span(second)[1]
            gap = source.data[source.span(first)[1] : source.span(second)[0]].decode()
            yield Edit(start, end, source.of(second) + gap + source.of(first))


def swapped_functions(source: Source, node: ast.AST) -> Iterator[Edit]:
    """`min` and `max`, `any` and `all`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SWAPPED_FUNCTIONS:
        yield Edit(*source.span(node.func), SWAPPED_FUNCTIONS[node.func.id])


def slices(source: Source, node: ast.AST) -> Iterator[Edit]:
    """A bound of a slice is left out."""
    if isinstance(node, ast.Slice):
        bounds = [x for x in (node.lower, node.upper, node.step) if x is not None]
        yield from (Edit(*source.span(bound), "") for bound in bounds)


def entries(source: Source, node: ast.AST) -> Iterator[Edit]:
    """An operator is left out of a table, a class out of those that a value may have."""
    items: Sequence[ast.AST] = ()
    if isinstance(node, (ast.Set, ast.List, ast.Tuple)):
        items = node.elts
    elif isinstance(node, ast.Call):
        items = node.args
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance" and isinstance(node.args[1], ast.Tuple):
            classes = node.args[1]
            yield from (_without_entry(source, classes, i) for i in range(len(classes.elts)))
    if isinstance(node, ast.Dict) and node.keys:
        yield from _dictionary_entries(source, node)
    plain = [x for x in items if not isinstance(x, ast.Starred)]
    if plain and all(is_operator_name(source.of(x)) for x in plain):
        for i, item in enumerate(items):
            if not isinstance(item, ast.Starred):
                yield _without_entry(source, node, i) if isinstance(node, ast.Tuple) else _without(source, items, i)


def is_operator_name(text: str) -> bool:
    """Whether a text names an operator of torch: aten.mm.default, "aten.mm.default"."""
    return re.fullmatch(r'"?(torch\.ops\.)?(aten|prims)\.\w+\.\w+"?', text) is not None


def _without_entry(source: Source, node: ast.Tuple, i: int) -> Edit:
    kept = [source.of(x) for j, x in enumerate(node.elts) if j != i]
    return Edit(*source.span(node), f"({', '.join(kept)}{',' if len(kept) == 1 else ''})")


def _dictionary_entries(source: Source, node: ast.Dict) -> Iterator[Edit]:
    for i, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
        if key is not None and is_operator_name(source.of(key)):
            following = node.keys[i + 1] if i + 1 < len(node.keys) else None
            end = source.span(following)[0] if following is not None else source.span(value)[1]
            yield Edit(source.span(key)[0], end, "")


def deletions(source: Source, statement: ast.stmt, is_last: bool) -> Iterator[Edit]:
    """A raise, an early return, a jump or a call for its effect is left out."""
    effect = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    early = isinstance(statement, ast.Return) and not is_last
    if effect or early or isinstance(statement, (ast.Raise, ast.Continue, ast.Break, ast.AugAssign)):
        yield Edit(*source.span(statement), "pass")


OPERATORS: tuple[Operator, ...] = (
    comparisons,
    connectives,
    signs,
    arithmetic,
    constants,
    conditions,
    keywords,
    swapped_arguments,
    swapped_functions,
    slices,
    entries,
)
