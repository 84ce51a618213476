"""LSTM, GRU and RNN step by step, before autograd sees them.

Torch takes them apart by itself, with two exceptions that do not serve. An LSTM of numbers that need no gradient, in
float32 on a CPU, becomes one operator of oneDNN, which tells nothing of its samples. And dropout between the layers is
left out: torch 2.11 to 2.13 ask for `num_layers < i - 1`, which never holds (`torch/_decomp/decompositions.py`,
`_rnn_helper`).

Letters: T positions, B samples, d inputs, H hidden numbers, k gates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RECURRENT"]

State = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _Weights:
    """Of one layer in one direction: input [k H, d], hidden [k H, H], their biases, and a projection [p, H]."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None
    projection: Tensor | None


Cell = Callable[[Tensor, State, _Weights], State]


def _lstm_cell(x: Tensor, state: State, weights: _Weights) -> State:
    """x [B, 4 H] is what the input adds to the gates; state h [B, H or p], c [B, H]."""
    h, c = state
    i, f, g, o = (x + F.linear(h, weights.hidden, weights.hidden_bias)).chunk(4, -1)
    # c' = f c + i g, h' = o tanh(c')
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if weights.projection is None else F.linear(h, weights.projection)), c


def _gru_cell(x: Tensor, state: State, weights: _Weights) -> State:
    (h,) = state
    x_r, x_z, x_n = x.chunk(3, -1)
    h_r, h_z, h_n = F.linear(h, weights.hidden, weights.hidden_bias).chunk(3, -1)
    # h' = (1 - z) n + z h with n = tanh(x_n + r h_n)
    n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return ((h - n) * (x_z + h_z).sigmoid() + n,)


def _tanh_cell(x: Tensor, state: State, weights: _Weights) -> State:
    return ((x + F.linear(state[0], weights.hidden, weights.hidden_bias)).tanh(),)


def _relu_cell(x: Tensor, state: State, weights: _Weights) -> State:
    return ((x + F.linear(state[0], weights.hidden, weights.hidden_bias)).relu(),)


def lstm(*args: Any) -> Any:
    """`torch.lstm`."""
    return _run(_lstm_cell, True, torch.lstm, *args)


def gru(*args: Any) -> Any:
    """`torch.gru`."""
    return _run(_gru_cell, False, torch.gru, *args)


def rnn_tanh(*args: Any) -> Any:
    """`torch.rnn_tanh`."""
    return _run(_tanh_cell, False, torch.rnn_tanh, *args)


def rnn_relu(*args: Any) -> Any:
    """`torch.rnn_relu`."""
    return _run(_relu_cell, False, torch.rnn_relu, *args)


def _run(cell: Cell, several_states: bool, original: Callable[..., Any], *args: Any) -> Any:
    """The result of `original(*args)`: outputs [T, B, H] and last states [layers, B, H].

    Packed sequences, which come with the sizes of their batches, are left as they are.
    """
    packed = isinstance(args[1], Tensor) if several_states else isinstance(args[2], Tensor)
    if packed:
        return original(*args)
    x, given, flat, has_biases, num_layers, dropout, train, bidirectional, batch_first = args
    states = list(zip(*(s.unbind(0) for s in (given if several_states else (given,))), strict=True))
    weights = list(_weights(flat, has_biases, len(states)))
    x = x.transpose(0, 1) if batch_first else x
    num_directions = 2 if bidirectional else 1
    last: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(num_directions):
            i = layer * num_directions + direction
            output, state = _one_direction(cell, x, states[i], weights[i], backwards=direction == 1)
            outputs.append(output)
            last.append(state)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if train and dropout > 0 and layer < num_layers - 1:
            x = F.dropout(x, dropout, training=True)
    return (x.transpose(0, 1) if batch_first else x), *(torch.stack(s) for s in zip(*last, strict=True))


def _weights(flat: Sequence[Tensor], has_biases: bool, num: int) -> Iterator[_Weights]:
    """Those of each layer and direction; a flat list holds them one after the other."""
    each = len(flat) // num
    for i in range(num):
        matrices = flat[i * each : (i + 1) * each]
        input_bias, hidden_bias = matrices[2:4] if has_biases else (None, None)
        rest = matrices[4 if has_biases else 2 :]
        yield _Weights(matrices[0], matrices[1], input_bias, hidden_bias, rest[0] if rest else None)


def _one_direction(cell: Cell, x: Tensor, state: State, weights: _Weights, *, backwards: bool) -> tuple[Tensor, State]:
    """Outputs [T, B, H] of x [T, B, d] in the order of x, and the last state."""
    steps = F.linear(x, weights.input, weights.input_bias).unbind(0)
    outputs = []
    for step in reversed(steps) if backwards else steps:
        state = cell(step, state, weights)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


RECURRENT: dict[Any, Callable[..., Any]] = {
    torch.lstm: lstm,
    torch.gru: gru,
    torch.rnn_tanh: rnn_tanh,
    torch.rnn_relu: rnn_relu,
}
