"""Generators whose draws nobody can foretell."""

import secrets

import torch

__all__ = ["entropy_generator"]


def entropy_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded with 63 bits of the operating system's entropy.

    The default wherever the privacy proof needs randomness: a seed that stands in a script is known to whoever reads
    the script, who can then subtract the noise. The guarantee is as strong as the generator behind it, which in torch
    (Mersenne Twister on CPU, Philox on CUDA) is statistical, not cryptographic.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(secrets.randbits(63))
    return generator
