"""Generate the mutants of a file: every small mistake that still parses, each with what must run to notice it.

Left alone is what decides nothing: docstrings and messages, annotations and aliases of types, `__all__`, assertions
(they guard our own mistakes), the arguments of errors, and `__repr__`.
"""

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tools.mutation.operators import OPERATORS, deletions, is_operator_name
from tools.mutation.source import Edit, Source

__all__ = ["Change", "Key", "generate", "sample"]

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """A generated mutant.

    Attributes:
        file: the file, relative to the root.
        scope: the qualified name of the function, "" outside of any.
        line: the number of the line where the change begins.
        code: the text of that line.
        what: the change in words, with a number if the line has several such.
        edit: the change.
        reached_by: lines of which one runs if the mutant is reached.
        names: names that a statement of the module binds, which reach the mutant where they are used.
        operator: the operator of torch that is left out of a table, "" for other mutants.
    """

    file: str
    scope: str
    line: int
    code: str
    what: str
    edit: Edit
    reached_by: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    operator: str = ""

    @property
    def key(self) -> Key:
        """What the mutant is known by, whatever stands above it in its file."""
        return self.file, self.scope, self.code, self.what


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk stands: as in `Change`."""

    scope: str = ""
    reached_by: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    is_last: bool = False


def generate(file: str, text: str) -> list[Change]:
    """All mutants of a file, in the order of the text."""
    source = Source(text)
    tree = ast.parse(text)
    before = ast.dump(tree)
    seen: set[str] = set()
    found = []
    for node, place in _walk(tree, _Place()):
        for edit in _edits(source, node, place):
            changed = source.replaced(edit)
            if changed not in seen and _differs(changed, before):
                seen.add(changed)
                found.append(_change(file, source, edit, place))
    found.sort(key=lambda change: (change.edit.start, change.edit.end, change.edit.new))
    return _numbered(found)


def _edits(source: Source, node: ast.AST, place: _Place) -> Iterator[Edit]:
    if isinstance(node, ast.stmt):
        yield from deletions(source, node, place.is_last)
    for operator in OPERATORS:
        yield from operator(source, node)


def _differs(changed: str, before: str) -> bool:
    try:
        compile(changed, "mutant", "exec", dont_inherit=True)
        return ast.dump(ast.parse(changed)) != before
    except (SyntaxError, ValueError):
        return False


def _change(file: str, source: Source, edit: Edit, place: _Place) -> Change:
    line, code = source.line_at(edit.start)
    old = source.data[edit.start : edit.end].decode()
    entry = old.strip().strip(",").partition(":")[0].strip()
    operator = entry.strip('"').removeprefix("torch.ops.") if is_operator_name(entry) and not edit.new else ""
    what = f"`{_plain(old)}` → `{_plain(edit.new)}`" if edit.new else f"without `{_plain(old).strip(' ,')}`"
    return Change(file, place.scope, line, code, what, edit, place.reached_by, place.names, operator)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _numbered(changes: Sequence[Change]) -> list[Change]:
    """Changes that are the same in words get numbers."""
    seen: Counter[Key] = Counter()
    numbered = []
    for change in changes:
        seen[change.key] += 1
        count = seen[change.key]
        numbered.append(replace(change, what=f"{change.what} ({count})") if count > 1 else change)
    return numbered


def sample(changes: Sequence[Change], num: int, seed: int) -> list[Change]:
    """As many mutants, drawn in turn from each file, in the order of the text."""
    files: dict[str, list[Change]] = {}
    for change in changes:
        files.setdefault(change.file, []).append(change)
    for file, several in files.items():
        random.Random(f"{seed} {file}").shuffle(several)
    drawn: set[Key] = set()
    while len(drawn) < min(num, len(changes)):
        for several in files.values():
            if several and len(drawn) < num:
                drawn.add(several.pop().key)
    return [change for change in changes if change.key in drawn]


# ---------------------------------------------------------------- the walk


def _walk(node: ast.AST, place: _Place) -> Iterator[tuple[ast.AST, _Place]]:
    """Every node that may be changed, with its place."""
    for child in _parts(node):
        here = _place_of(child, node, place)
        if _says_nothing(child):
            continue
        yield child, here
        if not isinstance(child, ast.Raise):
            yield from _walk(child, here)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """Children without annotations."""
    hidden = {"annotation", "returns", "type_comment"}
    if isinstance(node, ast.ClassDef):
        hidden |= {"decorator_list", "bases", "keywords"}
    for name, value in ast.iter_fields(node):
        if name not in hidden:
            yield from (x for x in (value if isinstance(value, list) else [value]) if isinstance(x, ast.AST))


def _says_nothing(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.FunctionDef(name="__repr__" | "__str__"):
            return True
        case ast.Call(func=ast.Name(id=name)) if name.endswith("Error"):
            return True
        case ast.keyword(arg="strict"):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name == "__all__" or _is_type(value)
    return False


def _is_type(node: ast.AST) -> bool:
    """Whether an expression is an alias of a type, and not of a value: `A | None`, `Callable[..., A]`."""
    match node:
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _is_type(left) and _is_type(right)
        case ast.Subscript() | ast.Name() | ast.Attribute() | ast.Constant(value=None | str()):
            return True
    return False


def _place_of(node: ast.AST, parent: ast.AST, place: _Place) -> _Place:
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            scope = f"{place.scope}.{node.name}".lstrip(".")
            if isinstance(node, ast.ClassDef):
                return _Place(scope, names=(node.name,))
            # decorators and defaults matter where the function runs
            return _Place(scope, (_first_line(node),))
        case ast.stmt():
            is_last = isinstance(parent, ast.FunctionDef) and parent.body[-1] is node
            if place.reached_by:
                return replace(place, reached_by=(node.lineno,), is_last=is_last)
            return replace(place, names=(*place.names, *_bound(node)))
    return place


def _first_line(function: ast.FunctionDef) -> int:
    is_docstring = isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant)
    return function.body[1 if is_docstring and len(function.body) > 1 else 0].lineno


def _bound(statement: ast.stmt) -> tuple[str, ...]:
    match statement:
        case ast.Assign(targets=targets):
            return tuple(x.id for x in targets if isinstance(x, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
    return ()
