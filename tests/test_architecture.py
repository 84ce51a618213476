"""Who may import whom in dpgraph, read off the source; and how long a file may be."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 300

# Every subpackage, with what it must not import: modules of dpgraph, or of torch.
FORBIDDEN: Mapping[str, tuple[str, ...]] = {
    "dpgraph.gradients": ("torch.fx", "dpgraph.passes", "dpgraph.provenance", "dpgraph.sites", "dpgraph.capture"),
    "dpgraph.kernels": ("torch.fx", "dpgraph"),
    "dpgraph.provenance": ("dpgraph.passes", "dpgraph.gradients", "dpgraph.sites", "dpgraph.lower", "dpgraph.report"),
    "dpgraph.passes": ("dpgraph.inspect", "dpgraph.memory", "dpgraph.report", "dpgraph.lower"),
    "dpgraph.memory": ("dpgraph.report", "dpgraph.lower"),
    "dpgraph.validate": ("dpgraph.passes", "dpgraph.sites", "dpgraph.gradients", "dpgraph.report", "dpgraph.lower"),
    "dpgraph.capture": ("dpgraph.passes", "dpgraph.provenance", "dpgraph.sites", "dpgraph.gradients"),
    "dpgraph.privacy": (
        "torch.fx",
        "dpgraph.capture",
        "dpgraph.gradients",
        "dpgraph.graphs",
        "dpgraph.passes",
        "dpgraph.provenance",
        "dpgraph.sites",
        "dpgraph.torch_compat",
    ),
    "dpgraph.errors": ("torch", "dpgraph"),
}
# The one file of a subpackage that may import its siblings.
PIPELINE = "dpgraph.passes.pipeline"
PRIVATE_TORCH = "dpgraph.torch_compat"
# Public in all but name: documented, and without another spelling.
DOCUMENTED_PRIVATE = {"torch._check"}


@dataclass(frozen=True)
class Source:
    """One file: dotted name, text, and whether it is the `__init__` of a package."""

    module: str
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def read_sources(root: Path) -> list[Source]:
    """Every file of the package dpgraph under `root`."""
    sources = []
    for path in sorted((root / "dpgraph").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        sources.append(Source(".".join(parts[:-1] if is_package else parts), path.read_text("utf-8"), is_package))
    return sources


def imports_of(source: Source) -> Iterator[tuple[str, int]]:
    """Dotted names that a file imports, with the line; `from a import b` counts as a and as a.b."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            yield base, node.lineno
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and _is_import_call(node):
            (name, *_) = node.args
            yield (str(name.value) if isinstance(name, ast.Constant) else "<computed>"), node.lineno


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = source.module.split(".")
    base = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_import_call(node: ast.Call) -> bool:
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return name in ("__import__", "import_module") and bool(node.args)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def subpackage(module: str) -> str:
    """`dpgraph.a.b.c` belongs to `dpgraph.a`; the package's own `__init__` to itself."""
    return ".".join(module.split(".")[:2])


def forbidden_imports(sources: list[Source]) -> list[str]:
    """Imports that the table forbids."""
    found = []
    for source in sources:
        for owner, names in FORBIDDEN.items():
            if not within(source.module, owner):
                continue
            for name, line in imports_of(source):
                if any(within(name, n) for n in names) and not within(name, owner):
                    found.append(f"{source.module}:{line} imports {name}, which {owner} must not")
    return sorted(set(found))


def passes_that_import_one_another(sources: list[Source]) -> list[str]:
    """Passes know nothing of each other; only the pipeline puts them in order."""
    return sorted(
        {
            f"{source.module}:{line} imports {name}"
            for source in sources
            if within(source.module, "dpgraph.passes") and source.module != PIPELINE and not source.is_package
            for name, line in imports_of(source)
            if within(name, "dpgraph.passes") and name != "dpgraph.passes"
        }
    )


def private_torch(sources: list[Source]) -> list[str]:
    """Uses of torch's private modules, by import or by attribute, outside the one package that may."""
    found = set()
    for source in sources:
        if within(source.module, PRIVATE_TORCH):
            continue
        names = [*imports_of(source), *_torch_attributes(source.tree)]
        for name, line in names:
            private = any(part.startswith("_") and not part.startswith("__") for part in name.split(".")[1:])
            if within(name, "torch") and private and name not in DOCUMENTED_PRIVATE:
                found.add(f"{source.module}:{line} uses {name}")
    return sorted(found)


def _torch_attributes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Chains `torch.a.b` in code; operators (`torch.ops.aten._softmax`) are names of ops, not of modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "torch" and parts[-1] != "ops":
                yield ".".join(["torch", *reversed(parts)]), node.lineno


def attribute_patches(sources: list[Source]) -> list[str]:
    """Calls of `setattr` and assignments to attributes of imported modules: nothing foreign is patched."""
    found = set()
    for source in sources:
        imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(source.tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("setattr", "delattr")
            ):
                found.add(f"{source.module}:{node.lineno} calls {node.func.id}")
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Attribute) and _root_name(target) in imported:
                    found.add(f"{source.module}:{node.lineno} assigns to {ast.unparse(target)}")
    return sorted(found)


def _root_name(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def import_cycle(sources: list[Source]) -> list[str]:
    """A cycle among the modules of dpgraph, as the names along it; [] if there is none."""
    names = {source.module for source in sources}
    packages = {source.module for source in sources if source.is_package}
    edges: dict[str, set[str]] = {}
    for source in sources:
        found = set()
        for name, _ in imports_of(source):
            if name in names and name != source.module:
                # `from package import name of a module` reads the module, not what the package re-exports
                whole = name in packages and any(n.startswith(name + ".") and n in names for n, _ in imports_of(source))
                if not whole:
                    found.add(name)
        edges[source.module] = found
    return _find_cycle(edges)


def package_cycle(sources: list[Source]) -> list[str]:
    """A cycle among subpackages (`dpgraph.passes`, `dpgraph.capture`, ...)."""
    owners = {subpackage(source.module) for source in sources} - {"dpgraph"}
    edges: dict[str, set[str]] = {owner: set() for owner in owners}
    for source in sources:
        owner = subpackage(source.module)
        if owner == "dpgraph":
            continue
        edges[owner] |= {subpackage(name) for name, _ in imports_of(source)} & (owners - {owner})
    return _find_cycle(edges)


def _find_cycle(edges: Mapping[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for successor in sorted(edges.get(node, ())):
            cycle = visit(successor, [*path, node])
            if cycle:
                return cycle
        done.add(node)
        return []

    for start in sorted(edges):
        cycle = visit(start, [])
        if cycle:
            return cycle
    return []


def undocumented(sources: list[Source]) -> list[str]:
    return [source.module for source in sources if not ast.get_docstring(source.tree)]


def too_long(sources: list[Source]) -> list[str]:
    lengths = {source.module: len(source.text.splitlines()) for source in sources}
    return [f"{module}: {length} lines" for module, length in lengths.items() if length > MAX_LINES]


CHECKS = (
    forbidden_imports,
    passes_that_import_one_another,
    private_torch,
    attribute_patches,
    import_cycle,
    package_cycle,
    undocumented,
    too_long,
)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    found = read_sources(ROOT)
    assert len(found) > 40, "the package was not found"
    return found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_dpgraph_keeps_to_the_design(check, sources):
    assert check(sources) == []


def test_every_owner_in_the_table_exists(sources):
    modules = {source.module for source in sources}
    assert set(FORBIDDEN) - modules <= {"dpgraph.privacy", "dpgraph.report", "dpgraph.inspect"}
    assert PIPELINE in modules
    assert PRIVATE_TORCH in modules


def source(module: str, text: str, is_package: bool = False) -> Source:
    return Source(module, f'"""Made up."""\n{text}\n', is_package)


BAD = {
    "a form that imports torch.fx": (
        forbidden_imports,
        [source("dpgraph.gradients.dense", "from torch.fx import Node")],
    ),
    "a form that imports torch's fx by name": (
        forbidden_imports,
        [source("dpgraph.gradients.dense", "from torch import fx")],
    ),
    "a rule that reads provenance": (
        forbidden_imports,
        [source("dpgraph.gradients.rules.sums", "import dpgraph.provenance.lattice as l")],
    ),
    "a relative import out of the package": (
        forbidden_imports,
        [source("dpgraph.gradients.rules.sums", "from ...passes import prune")],
    ),
    "an import inside a function": (
        forbidden_imports,
        [source("dpgraph.passes.prune", "def f():\n    from dpgraph.report.table import render")],
    ),
    "an import by a string": (
        forbidden_imports,
        [source("dpgraph.passes.prune", "import importlib\nimportlib.import_module('dpgraph.inspect.diff')")],
    ),
    "accounting that imports the compiler": (
        forbidden_imports,
        [source("dpgraph.privacy.noise", "from dpgraph.passes.pipeline import rewrite")],
    ),
    "a pass that imports another": (
        passes_that_import_one_another,
        [source("dpgraph.passes.prune", "from dpgraph.passes.insert_norms import insert_norms")],
    ),
    "a pass that imports another from the package": (
        passes_that_import_one_another,
        [source("dpgraph.passes.prune", "from dpgraph.passes import insert_norms")],
    ),
    "a private module of torch": (private_torch, [source("dpgraph.sites.find", "from torch._ops import OpOverload")]),
    "a private module deep in torch": (
        private_torch,
        [source("dpgraph.sites.find", "from torch.utils._pytree import tree_map")],
    ),
    "a private module of torch by attribute": (
        private_torch,
        [source("dpgraph.sites.find", "import torch\ntorch._dynamo.reset()")],
    ),
    "setattr": (attribute_patches, [source("dpgraph.api", "setattr(model, 'forward', None)")]),
    "a patched class": (
        attribute_patches,
        [source("dpgraph.api", "import torch\ntorch.nn.Linear.forward = None")],
    ),
    "modules that import each other": (
        import_cycle,
        [source("dpgraph.a", "import dpgraph.b"), source("dpgraph.b", "from dpgraph.a import f")],
    ),
    "packages that import each other": (
        package_cycle,
        [
            source("dpgraph.a.one", "import dpgraph.b.two"),
            source("dpgraph.b.two", ""),
            source("dpgraph.b.three", "import dpgraph.a.four"),
            source("dpgraph.a.four", ""),
        ],
    ),
    "no docstring": (undocumented, [Source("dpgraph.a", "x = 1\n")]),
    "a long file": (too_long, [source("dpgraph.a", "x = 1\n" * MAX_LINES)]),
}


@pytest.mark.parametrize("name", BAD)
def test_the_checks_find_bad_source(name):
    check, bad = BAD[name]
    assert check(bad)


GOOD = [
    source("dpgraph", "from dpgraph.api import dp_compile", is_package=True),
    source("dpgraph.api", "import torch\nfrom dpgraph.passes.pipeline import rewrite\ntorch._check(True)"),
    source("dpgraph.gradients.sums", "import torch\naten = torch.ops.aten\naten._softmax\ntorch.ops.aten._softmax"),
    source("dpgraph.passes", "", is_package=True),
    source("dpgraph.passes.prune", "from dpgraph.gradients.sums import total"),
    source("dpgraph.passes.pipeline", "from dpgraph.passes.prune import prune\nfrom dpgraph.passes import prune"),
    source("dpgraph.torch_compat", "import torch._dynamo\nfrom torch._ops import OpOverload"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_pass_good_source(check):
    assert check(GOOD) == []
