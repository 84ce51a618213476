"""Everything that dpgraph takes from torch's private modules, in one place; written for torch 2.11 to 2.13."""

from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException, UserError
from torch._functorch._aot_autograd.descriptors import (
    AOTInput,
    AOTOutput,
    GradAOTOutput,
    InputMutationAOTOutput,
    IntermediateBaseAOTOutput,
    PlainAOTInput,
    PlainAOTOutput,
    TangentAOTInput,
)
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError, ShapeEnv
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._sympy.functions import FloorDiv, Mod

from dpgraph.torch_compat.lowering import compile_eager, compile_inductor, partition, partition_for_inductor, schedule
from dpgraph.torch_compat.native import compile_native
from dpgraph.torch_compat.once import computed_once
from dpgraph.torch_compat.replay import (
    INDUCTOR_RANDINT,
    INDUCTOR_RANDOM,
    compile_part,
    draw_from_seed,
    draw_seeds,
    without_autocast,
)
from dpgraph.torch_compat.tracing import (
    batch_marked,
    capture_config,
    chooses_kernel,
    compile_separately,
    compute_size,
    current_fake_mode,
    decompositions,
    find_operators,
    size_hint,
    storage_of,
    symbolic_fake,
    trace,
)

__all__ = [
    "INDUCTOR_RANDINT",
    "INDUCTOR_RANDOM",
    "AOTInput",
    "AOTOutput",
    "BackendCompilerFailed",
    "ConstraintViolationError",
    "FakeTensor",
    "FakeTensorMode",
    "FloorDiv",
    "GradAOTOutput",
    "InputMutationAOTOutput",
    "IntermediateBaseAOTOutput",
    "Mod",
    "OpOverload",
    "PlainAOTInput",
    "PlainAOTOutput",
    "ShapeEnv",
    "TangentAOTInput",
    "TorchDynamoException",
    "UserError",
    "batch_marked",
    "capture_config",
    "chooses_kernel",
    "compile_eager",
    "compile_inductor",
    "compile_native",
    "compile_part",
    "compile_separately",
    "compute_size",
    "computed_once",
    "current_fake_mode",
    "decompositions",
    "draw_from_seed",
    "draw_seeds",
    "find_operators",
    "partition",
    "partition_for_inductor",
    "schedule",
    "size_hint",
    "storage_of",
    "symbolic_fake",
    "trace",
    "tree_leaves",
    "tree_map",
    "unset_fake_temporarily",
    "without_autocast",
]
