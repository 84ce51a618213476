"""Guards of the way to Inductor: what breaks them is not seen op by op."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

LOWERING = "dpgraph/torch_compat/lowering.py"
CACHE = "tests/test_cache.py::test_the_second_compilation_is_looked_up_whatever_size_comes_first"


def lowered(name: str, source: str, replacement: str, *tests: str) -> Mutant:
    """A mutant of the lowering that tests through Inductor must kill."""
    return Mutant(name, LOWERING, source, replacement, tests)


MUTANTS = (
    lowered(
        "Inductor lowers what was captured, not what it was rewritten to",
        "_copy_into(graph, new)",
        "_copy_into(graph, captured.graph)",
        CACHE,
    ),
    lowered(
        "a private graph is had from a cache without an analysis",
        '"enable_autograd_cache": False',
        '"enable_autograd_cache": True',
        CACHE,
    ),
    lowered(
        "Inductor changes the captured graph that was recorded",
        "captured = GraphModule(owner, _copy_into(Graph(), graph))",
        "captured = GraphModule(owner, graph)",
        "tests/memory/test_predict.py::test_the_captured_graph_outlives_what_inductor_makes_of_it",
    ),
    Mutant(
        "Inductor orders strides of a size that varies",
        "dpgraph/torch_compat/layouts.py",
        "and any(isinstance(size, SymInt) for size in x.shape[1:])",
        "and False",
        ("tests/lower/test_layouts.py::test_sizes_that_vary",),
    ),
    Mutant(
        "a backward overwrites memory that it reads under another name",
        "dpgraph/torch_compat/donations.py",
        "if memory.count(memory[i]) == 1",
        "if True",
        ("tests/lower/test_shared_memory.py::test_two_views_of_one_memory_are_not_overwritten",),
    ),
)
