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
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError, ShapeEnv, free_unbacked_symbols
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._sympy.functions import FloorDiv, Mod

from dpgraph.torch_compat.capture_env import begin_capture
from dpgraph.torch_compat.drawn_once import draws_numbers
from dpgraph.torch_compat.engine import backward_under_way, will_accumulate, without_autocast
from dpgraph.torch_compat.kernel_choice import chooses_kernel
from dpgraph.torch_compat.lowering import compile_eager, compile_inductor, partition, partition_for_inductor, schedule
from dpgraph.torch_compat.native import compile_native
from dpgraph.torch_compat.once import computed_once, held_in_backward
from dpgraph.torch_compat.own_memory import in_own_memory
from dpgraph.torch_compat.replay import (
    INDUCTOR_RANDINT,
    INDUCTOR_RANDOM,
    compile_part,
    draw_from_seed,
    draw_seeds,
)
from dpgraph.torch_compat.side_effects import (
    InputSource,
    Written,
    hooked_inputs,
    input_sources,
    written_values,
)
from dpgraph.torch_compat.tracing import (
    batch_marked,
    capture_config,
    compile_separately,
    compiler_is_off,
    compute_size,
    current_fake_mode,
    decompositions,
    find_operators,
    find_packets,
    find_tracer,
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
    "InputSource",
    "IntermediateBaseAOTOutput",
    "Mod",
    "OpOverload",
    "PlainAOTInput",
    "PlainAOTOutput",
    "ShapeEnv",
    "TangentAOTInput",
    "TorchDynamoException",
    "UserError",
    "Written",
    "backward_under_way",
    "batch_marked",
    "begin_capture",
    "capture_config",
    "chooses_kernel",
    "compile_eager",
    "compile_inductor",
    "compile_native",
    "compile_part",
    "compile_separately",
    "compiler_is_off",
    "compute_size",
    "computed_once",
    "current_fake_mode",
    "decompositions",
    "draw_from_seed",
    "draw_seeds",
    "draws_numbers",
    "find_operators",
    "find_packets",
    "find_tracer",
    "free_unbacked_symbols",
    "held_in_backward",
    "hooked_inputs",
    "in_own_memory",
    "input_sources",
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
    "will_accumulate",
    "without_autocast",
    "written_values",
]
