"""Turn what the tracer raises into errors of dpgraph, with the user's line."""

import ast
import re

from dpgraph.capture.batch_size import batch_size_fixed
from dpgraph.capture.place import parse_line
from dpgraph.errors import CaptureError, DPGraphError, Place
from dpgraph.torch_compat import (
    BackendCompilerFailed,
    ConstraintViolationError,
    compiler_is_off,
    find_tracer,
)

__all__ = ["refuse_detours", "translate", "went_around"]

WHY_ONE_GRAPH = "only a graph that holds the whole forward and backward can be shown to keep the samples apart"
ONE_GRAPH = (
    "remove the graph break: no .item(), print or data-dependent branches in forward; "
    "torch.compile(model, fullgraph=True) must accept it"
)
KEEP_GRADIENTS = (
    "leave requires_grad of activations as it is, since gradients pass through frozen layers anyway; for models of "
    "transformers call model.disable_input_require_grads() after gradient_checkpointing_enable()"
)
NO_INPUT_GRADIENTS = (
    "leave requires_grad of activations as it is, since gradients pass through frozen layers anyway; for wav2vec2 and "
    "its like set model.wav2vec2.feature_extractor._requires_grad = False, or freeze_feature_encoder() if it is frozen"
)
SAY_CAUSAL = (
    "pass is_causal=True or False beside the mask (tgt_is_causal and memory_is_causal to a decoder): without it "
    "nn.TransformerEncoder reads the mask's numbers to see whether it is causal, and branches on them"
)
# Where torch's transformers find out whether a mask is causal, which they then hand on.
DETECTION = "nn/modules/transformer.py"
EXPLANATION = re.compile(r"Explanation: (?P<sentence>.*?)\.?$", re.MULTILINE)
# Not the flag of a tensor that is printed.
SETS_REQUIRES_GRAD = re.compile(r"requires_grad(?!=)")
# What an operator raised when it was tried on values without numbers, as the tracer quotes it.
RAISED = re.compile(r"with fake tensors: .*: got (?P<kind>\w+)\((?P<quoted>.*)\)$", re.DOTALL)
# An error that the model itself raises, and how the tracer quotes it.
OWN = "Observed exception"
RAISES = re.compile(r"raised exception (?P<error>.+)$", re.MULTILINE)
LOOK_AT_INPUTS = (
    "compare shapes and dtypes of the batch with what the model takes: module.original_module(...) runs it as it is (a "
    "name such as s7 is a size that varies: of samples, or of what varied so far); if it does, write the step so that "
    "torch.compile(model, fullgraph=True) accepts it"
)
USER_CODE = re.compile(r"from user code:(?P<trace>.*)", re.DOTALL)


def translate(error: BaseException) -> DPGraphError | None:
    """The dpgraph error behind an exception of the tracer; None if it is the user's own."""
    if isinstance(error, DPGraphError):
        return error
    if isinstance(error, BackendCompilerFailed):
        inner = error.inner_exception
        return inner if isinstance(inner, DPGraphError) else _failed(inner)
    if isinstance(error, ConstraintViolationError) or "Constraints violated" in str(error):
        return batch_size_fixed(Place(line=parse_line(str(error))))
    if type(error).__module__.startswith("torch._dynamo"):
        return _not_one_graph(error)
    return None


def refuse_detours() -> None:
    """Pass if `torch.compile` is on, and no other tracer records the call: it would record the model's own operators.

    Raises:
        CaptureError: it is off, or one does.
    """
    if compiler_is_off():
        raise went_around()
    tracer = find_tracer()
    if tracer is not None:
        raise CaptureError(
            f"{tracer} records a call of the private module",
            why="what it records is the model without clipping, and gradients through the record would be unclipped",
            fix="record module.original_module, or record under torch.no_grad(); to speed training up, nothing is "
            "needed: the module is compiled",
        )


def went_around() -> CaptureError:
    """The error of a call for which torch ran the model itself, and no graph of ours."""
    return CaptureError(
        "torch ran the model as it is, and no private graph",
        why="gradients of that call would not be clipped",
        fix="leave torch.compile switched on: no torch.compiler.set_stance other than the default, no "
        'TORCHDYNAMO_DISABLE; to run without a compiler take CompileOptions(backend="eager"); to evaluate, '
        "torch.no_grad()",
    )


def _not_one_graph(error: BaseException) -> CaptureError:
    text = str(error)
    found = USER_CODE.search(text)
    line = parse_line(found["trace"]) if found else None
    if OWN in text and (raised := RAISES.search(text)):
        return CaptureError(
            f"the model raises an error of its own: {raised['error'].strip()}",
            place=Place(line=line),
            why="what cannot be run cannot be shown to keep the samples apart",
            fix=LOOK_AT_INPUTS,
        )
    explained = EXPLANATION.search(text)
    if explained and (raised := RAISED.search(explained["sentence"])):
        return CaptureError(
            f"an operator does not take what it is given: {raised['kind']}: {_first_line(raised['quoted'])}",
            place=Place(line=line),
            why="what cannot be run cannot be shown to keep the samples apart",
            fix=LOOK_AT_INPUTS,
        )
    reason = text.strip().splitlines()[0] + (f" ({explained['sentence']})" if explained else "")
    return CaptureError(
        f"the model could not be traced into one graph: {reason}",
        place=Place(line=line),
        why=WHY_ONE_GRAPH,
        fix=_way_out(reason, found["trace"] if found else ""),
    )


def _first_line(quoted: str) -> str:
    """Of a message that stands between quotes."""
    try:
        text = str(ast.literal_eval(quoted))
    except (SyntaxError, ValueError):
        text = quoted
    return text.strip().partition("\n")[0]


def _way_out(reason: str, trace: str) -> str:
    if "setattr() on Tensor.requires_grad" in reason:
        return NO_INPUT_GRADIENTS
    if SETS_REQUIRES_GRAD.search(reason):
        return KEEP_GRADIENTS
    if "data-dependent expression" in reason and DETECTION in trace.replace("\\", "/"):
        return SAY_CAUSAL
    return ONE_GRAPH


def _failed(error: Exception) -> CaptureError:
    first_line = str(error).strip().partition("\n")[0]
    failure = CaptureError(
        f"compiling the graph failed: {type(error).__name__}: {first_line}",
        why=WHY_ONE_GRAPH,
        fix="if torch.compile(model, fullgraph=True) accepts the model, this is a defect of dpgraph: report it with "
        "the traceback above",
    )
    failure.__cause__ = error
    return failure
