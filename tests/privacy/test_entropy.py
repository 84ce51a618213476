"""The state of a generator comes from the operating system, and no part of it from a seed that can be guessed."""

import pytest
import torch

from dpgraph.privacy.entropy import FIRST_WORD, WORD, WORDS, entropy_generator


def draws(generator: torch.Generator, count: int = 2000) -> torch.Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def words(generator: torch.Generator) -> list[int]:
    state = generator.get_state().numpy().tobytes()
    return [WORD.unpack_from(state, FIRST_WORD + i * WORD.size)[0] for i in range(WORDS)]


def test_a_seed_is_32_bits_of_it():
    """What torch does, and why a seed will not do."""
    few, many = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert torch.equal(draws(few), draws(many))


def test_seeds_that_are_equal_modulo_two_to_the_32_do_not_give_equal_draws(monkeypatch):
    """The seed is the least of the state: all the rest of it is drawn too."""
    bits = []
    monkeypatch.setattr("secrets.randbits", lambda n: bits.append(n) or len(bits))
    first, first_bits = entropy_generator(), list(bits)
    second = entropy_generator()
    assert first_bits == [63, *[32] * WORDS]
    assert words(first) == list(range(2, WORDS + 2))
    assert not torch.equal(draws(first), draws(second))


def test_the_state_is_none_that_a_seed_gives():
    generator = entropy_generator()
    seeded = torch.Generator().manual_seed(generator.initial_seed())
    drawn, known = words(generator), words(seeded)
    assert max(drawn) < 2**32
    assert sum(a == b for a, b in zip(drawn, known, strict=True)) <= 1
    assert len(set(drawn)) > WORDS - 3
    assert not torch.equal(draws(generator), draws(seeded))


def test_draws_are_uniform_and_normal():
    generator = entropy_generator()
    uniform = draws(generator, 100_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    normal = torch.randn(100_000, generator=generator)
    assert normal.mean().item() == pytest.approx(0, abs=0.02)
    assert normal.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(normal, torch.randn(100_000, generator=generator))


def test_a_state_can_be_kept_and_gone_on_with():
    generator = entropy_generator()
    state = generator.get_state()
    expected = draws(generator)
    other = torch.Generator()
    other.set_state(state)
    assert torch.equal(draws(other), expected)
    assert not torch.equal(draws(entropy_generator()), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Philox is the generator of CUDA")
def test_philox():
    first, second = entropy_generator("cuda"), entropy_generator("cuda")
    for generator in (first, second):
        assert generator.get_offset() > 0
    x, y = (torch.rand(1000, device="cuda", generator=g) for g in (first, second))
    assert not torch.equal(x, y)
