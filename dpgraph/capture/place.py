"""From a node of a graph to the place in the user's program that it came from."""

import linecache
import re

from torch import Tensor
from torch.fx import Node

from dpgraph.errors import Place, SourceLine

__all__ = ["find_line", "find_module", "find_place", "name_of_source", "parse_line"]

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
CONTAINER = re.compile(r"\._modules\['([^']+)'\]")
REGISTRY = re.compile(r"(?:\.__dict__\['(?:_buffers|_parameters)'\]|\._buffers|\._parameters)\['([^']+)'\]")
ROOT = re.compile(r"^[LG]\['(?:__import_)?(\w+)'\]")


def find_place(node: Node, *, parameter: str | None = None) -> Place:
    """The op with the shapes of its operands, the module and the source line of a node."""
    return Place(op=_describe(node), module=find_module(node), parameter=parameter, line=find_line(node))


def find_line(node: Node) -> SourceLine | None:
    """The innermost line outside torch and dpgraph that led to a node, or to the forward op it is the backward of."""
    trace = node.meta.get("stack_trace") or node.meta.get("fwd_stack_trace") or ""
    return parse_line(trace)


def parse_line(trace: str) -> SourceLine | None:
    """The innermost frame of a formatted stack trace that lies outside torch, or in torch if there is none."""
    frames = [f for f in FRAME.finditer(trace) if not _is_ours(f["file"])]
    frames = [f for f in frames if not _is_torch(f["file"])] or frames
    if not frames:
        return None
    last = frames[-1]
    code = linecache.getline(last["file"], int(last["line"])).strip()
    return SourceLine(last["file"], int(last["line"]), last["function"], code)


def _is_torch(filename: str) -> bool:
    parts = filename.replace("\\", "/").split("/")
    return "torch" in parts and "site-packages" in parts


def _is_ours(filename: str) -> bool:
    return filename.replace("\\", "/").split("/")[-3:-1] == ["dpgraph", "lower"]


def _describe(node: Node) -> str:
    shapes = [
        f"{x.name} {list(x.meta['val'].shape)}" for x in node.all_input_nodes if isinstance(x.meta.get("val"), Tensor)
    ]
    return f"{node.target}({', '.join(shapes)})"


def find_module(node: Node) -> str | None:
    """Name of the innermost module that a node came from; "" for the model itself, None if it is not known."""
    stack = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack")
    if not stack:
        return None
    return name_of_source(list(stack.values())[-1][0])


def name_of_source(source: str) -> str:
    """The name by which a user knows what an expression of the tracer's stands for, "" for the model itself.

    >>> name_of_source("L['model']._modules['layer']._modules['0']._parameters['weight']")
    'layer.0.weight'
    >>> name_of_source("L['loss_fn'].centre")
    'loss_fn.centre'
    """
    dotted = REGISTRY.sub(r".\1", CONTAINER.sub(r".\1", source))
    return ROOT.sub(r"\1", dotted.removeprefix("L['model']")).strip(".")
