"""Transfer rules of decompositions and solvers, which treat every matrix of a stack by itself.

Operands are stacks of matrices [*, m, n], or of vectors [*, n] beside matrices of one axis more.
"""

from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Shared, SummedOverSamples
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.torch_compat import find_operators


@transfer(
    *find_operators(
        "aten._linalg_det.default",
        "aten._linalg_eigh.default",
        "aten._linalg_slogdet.default",
        "aten._linalg_svd.default",
        "aten.linalg_cholesky_ex.default",
        "aten.linalg_eig.default",
        "aten.linalg_inv_ex.default",
        "aten.linalg_lu.default",
        "aten.linalg_lu_factor_ex.default",
        "aten.linalg_matrix_exp.default",
        "aten.linalg_qr.default",
        "aten.lu_unpack.default",
    )
)
def decomposition(step: Step) -> Results:
    """Of each matrix of a stack; whatever comes out of it is stacked in the same way."""
    return _stacked(step, step.tensors)


@transfer(
    *find_operators(
        "aten._linalg_solve_ex.default",
        "aten.linalg_lu_solve.default",
        "aten.linalg_solve_triangular.default",
    )
)
def solve(step: Step) -> Results:
    """(matrices, right-hand sides), or (LU, pivots, right-hand sides): linear in the latter."""
    *matrices, right = step.tensors
    found, value = step.of(right), step.node.meta["val"]
    solved: Provenance
    if all(isinstance(step.of(x), Shared) for x in matrices) and (
        isinstance(found, SummedOverSamples) or (isinstance(found, PerSample) and _solves_apart(step, right, found))
    ):
        solved = found
    else:
        solved = _stacked(step, step.tensors)
    # what else comes out are factors of the matrices
    return (solved, *(_stacked(step, matrices),) * (len(value) - 1)) if isinstance(value, (tuple, list)) else solved


def _solves_apart(step: Step, right: Node, found: PerSample) -> bool:
    """Whether the samples are right-hand sides of one system: the columns of one matrix, or the rows of X A = B."""
    rank = len(step.shape(right))
    apart = rank - 1 if step.node.kwargs.get("left", True) else rank - 2
    return found.axis == apart and rank == len(step.shape(step.args[0]))


def _stacked(step: Step, operands: list[Node]) -> Provenance:
    """How the operands are per sample, if along axes that stack their matrices or vectors, in which all agree."""
    ranks = [len(step.shape(x)) for x in operands]
    shifts = []
    for x, rank in zip(operands, ranks, strict=True):
        found, of_vectors = step.of(x), rank == ranks[0] - 1
        if isinstance(found, PerSample) and found.axis >= rank - (1 if of_vectors else 2):
            return step.mixed("takes one matrix of several samples")
        shifts.append(max(ranks) - rank - of_vectors)
    return step.agreed(operands, shifts)
