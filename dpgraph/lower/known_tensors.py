"""The tensors that a graph of one call may read, by what they are."""

from collections.abc import Mapping

from torch import Tensor, nn

from dpgraph.capture.batch import BatchedCall
from dpgraph.capture.joint import Sample
from dpgraph.capture.trace import CallTensors
from dpgraph.lower.held_tensors import HeldTensors
from dpgraph.lower.probed import LossFunction

__all__ = ["name_tensors"]


def name_tensors(
    model: nn.Module,
    loss_fn: LossFunction | None,
    held: HeldTensors,
    call: BatchedCall,
    probe: Tensor,
    parameters: Mapping[int, str],
) -> CallTensors:
    """Parameters, buffers, what model and loss own, and the arguments; nothing else is known to be free of samples.

    Args:
        model: the module that is called.
        loss_fn: the loss behind it, if there is one.
        held: what the model held when it was compiled.
        call: its arguments, with the batch found.
        probe: of the call.
        parameters: names of the model's, by id.
    """
    constants = {key: name for key, name in call.names.items() if key not in call.dims}
    constants = held.names() | constants | {id(b): name for name, b in model.named_buffers()}
    if isinstance(loss_fn, nn.Module):
        own = (*loss_fn.named_parameters(), *loss_fn.named_buffers())
        constants |= {id(x): f"loss_fn.{name}" for name, x in own}
    return CallTensors(
        parameters=parameters,
        constants=constants,
        samples={key: Sample(axis, call.names[key]) for key, axis in call.dims.items()},
        probe=probe,
        num_samples=call.num_samples,
    )
