"""Programs with decompositions, solvers, diagonals and distances, of which a stack of matrices has one each."""

import torch

from tests.provenance.analysed import B, samples, shared
from tests.provenance.program import program

N = T = 4
D = 5
X = samples(B, T, D)
STACK = samples(B, N, N)
VECTORS = samples(B, N)
MATRIX = shared(N, N)
ROWS = samples(B, D)
STACK_OF_ROWS = samples(B, 2, D)


def regular(x: torch.Tensor) -> torch.Tensor:
    """Positive definite matrices."""
    return x @ x.mT + N * torch.eye(N, dtype=x.dtype)


def distances_backward(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Gradient of x, for the distances of all its rows from those of y."""
    return torch.ops.aten._cdist_backward(grad, x, y, 2.0, torch.ops.aten._cdist_forward(x, y, 2.0, None))


MATRICES = [
    program("inverse of each matrix", 0, lambda x: torch.linalg.inv_ex(regular(x))[0], STACK),
    program("Cholesky factor of each matrix", 0, lambda x: torch.linalg.cholesky_ex(regular(x))[0], STACK),
    program("determinants", 0, lambda x: torch.linalg.det(x), STACK),
    program("logarithms of determinants", (0, 0), lambda x: tuple(torch.linalg.slogdet(x)), STACK),
    program("singular values", 0, lambda x: torch.linalg.svd(x)[1], STACK),
    program("eigenvalues of symmetric matrices", 0, lambda x: torch.linalg.eigh(regular(x))[0], STACK),
    program("triangular factor", 0, lambda x: torch.linalg.qr(x)[1], STACK),
    program("factors that are unpacked", 0, lambda x: torch.lu_unpack(*torch.linalg.lu_factor_ex(x)[:2])[1], STACK),
    program("exponentials of matrices", 0, lambda x: torch.linalg.matrix_exp(x), STACK),
    program("singular values across the samples", "refused", lambda x: torch.linalg.svdvals(x.transpose(0, 1)), X),
    program("a system for each sample", 0, lambda a, y: torch.linalg.solve_ex(regular(a), y)[0], STACK, VECTORS),
    program("one system for all", 0, lambda a, y: torch.linalg.solve_ex(regular(a), y.mT)[0].mT, MATRIX, VECTORS),
    program(
        "one system for all, from the right",
        0,
        lambda a, y: torch.linalg.solve_ex(regular(a), y, left=False)[0],
        MATRIX,
        VECTORS,
    ),
    program("one system for stacks", 0, lambda a, y: torch.linalg.solve_ex(regular(a), y)[0], MATRIX, STACK),
    program("factors of matrices whose rows are samples", "refused", lambda x: torch.linalg.qr(x)[0], samples(3, B, 2)),
    program("samples as rows of one matrix", "refused", lambda x: torch.linalg.svdvals(x), VECTORS),
    program("a solution of sums", "sum", lambda a, y: torch.linalg.solve_ex(regular(a), y.sum(0))[0], MATRIX, STACK),
    program("sums as a system", "refused", lambda a, y: torch.linalg.solve_ex(y.sum(0), a)[0], MATRIX, STACK),
    program(
        "a triangular system for each sample",
        0,
        lambda a, y: torch.linalg.solve_triangular(regular(a), y, upper=True),
        STACK,
        STACK,
    ),
    program(
        "factors and right-hand sides",
        0,
        lambda a, y: torch.linalg.lu_solve(*torch.linalg.lu_factor_ex(regular(a))[:2], y),
        STACK,
        STACK,
    ),
    program("diagonal of each matrix", 0, lambda x: x.diagonal(dim1=1, dim2=2), STACK),
    program("diagonals in front of the samples", 0, lambda x: x.diagonal(dim1=0, dim2=2), samples(N, B, N)),
    program("diagonals between the samples", 1, lambda x: x.diagonal(dim1=0, dim2=3), samples(N, T, B, N)),
    program("diagonal through the samples", "refused", lambda x: x.diagonal(dim1=0, dim2=2), STACK),
    program("diagonal of a sum", "sum", lambda x: x.sum(0).diagonal(), STACK),
    program("diagonal that is replaced", 0, lambda x, y: x.diagonal_scatter(y, 0, 1, 2), STACK, VECTORS),
    program("diagonal that is put into all", 0, lambda x, y: x.diagonal_scatter(y, 0, 1, 2), STACK, samples(B, N)),
    program(
        "shared diagonal of samples",
        "refused",
        lambda x, w: x.diagonal_scatter(w, 0, 0, 1)[..., 0],
        samples(B, 2, N),
        shared(N, 2),
    ),
    program("sum as a diagonal of zeros", "sum", lambda x: x.new_zeros(N, N).diagonal_scatter(x.sum(0)), VECTORS),
    program("sum as a diagonal of ones", "refused", lambda x: x.new_ones(N, N).diagonal_scatter(x.sum(0)), VECTORS),
    program("distances in each sample", 0, lambda x, y: torch.ops.aten._cdist_forward(x, y, 2.0, 2), X, STACK_OF_ROWS),
    program(
        "distances to shared rows", 0, lambda x, w: torch.ops.aten._cdist_forward(x, w, 1.0, None), ROWS, shared(T, D)
    ),
    program(
        "distances from shared rows", 1, lambda w, x: torch.ops.aten._cdist_forward(w, x, 1.0, None), shared(T, D), ROWS
    ),
    program("distances of shared points", 0, lambda x, w: torch.cdist(w, x), X, shared(1, 3, D)),
    program(
        "distances of shared stacks of points",
        0,
        lambda x, w: torch.ops.aten._cdist_forward(w, x, 2.0, 1),
        X,
        shared(1, 3, D),
    ),
    program("distances between samples", "refused", lambda x: torch.ops.aten._cdist_forward(x, x, 2.0, None), ROWS),
    program(
        "backward of distances to shared rows",
        0,
        lambda g, x, w: distances_backward(g, x, w),
        samples(B, T),
        ROWS,
        shared(T, D),
    ),
    program(
        "backward of distances from shared rows",
        "sum",
        lambda g, w, x: distances_backward(g, w, x),
        samples(T, B),
        shared(T, D),
        ROWS,
    ),
    program(
        "distances between samples, backward", "refused", lambda g, x: distances_backward(g, x, x), shared(B, B), ROWS
    ),
]
