"""Generators whose draws nobody can foretell."""

import secrets
import struct

import torch
from torch import Tensor

__all__ = ["entropy_generator"]

# State of torch's generator on the CPU, a Mersenne Twister: the seed, how many of its words are left and whether it is
# seeded (two int32), the next one, its words (each in 64 bits), and what is left of normal numbers.
# Source: aten/src/ATen/CPUGeneratorImpl.cpp
WORDS = 624
WORD = struct.Struct("<Q")
FIRST_WORD = 24
CPU_STATE = 5056
# State of Philox, on CUDA: its key, and how far it has counted, in steps of four.
# Source: aten/src/ATen/cuda/CUDAGeneratorImpl.cpp
PHILOX = struct.Struct("<QQ")


def entropy_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose whole state is the operating system's entropy.

    The default wherever the privacy proof needs randomness: a seed that stands in a script is known to whoever reads
    the script, who can then subtract the noise. `manual_seed` is no way to seed either: of whatever it is given the
    CPU's Mersenne Twister reads 32 bits, which can all be tried. Here its 19,937 bits are drawn, and of Philox, on
    CUDA, the 64 bits of its key and 60 of its counter. The guarantee is as strong as the generator, which in torch is
    statistical, not cryptographic.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(secrets.randbits(63))
    state = generator.get_state()
    if generator.device.type == "cpu":
        generator.set_state(_twister(state))
    elif state.numel() == PHILOX.size:
        generator.set_state(_bytes(PHILOX.pack(secrets.randbits(64), 4 * secrets.randbits(60))))
    return generator


def _twister(fresh: Tensor) -> Tensor:
    """A state with words of its own, of which none was read yet."""
    assert fresh.numel() == CPU_STATE, "torch's generator has another state than the one that is known here"
    state = bytearray(fresh.numpy().tobytes())
    for i in range(WORDS):
        WORD.pack_into(state, FIRST_WORD + i * WORD.size, secrets.randbits(32))
    return _bytes(bytes(state))


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
