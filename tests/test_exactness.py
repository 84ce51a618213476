"""Every parameter's gradient against the loop over the samples: architectures x modes x clipping x grouping x dtype."""

import math
from functools import cache
from itertools import combinations, product

import pytest
import torch
from torch import nn

from dpgraph import CompileOptions, DPModule, dp_compile
from tests.models.architecture import Architecture, Batch
from tests.models.plain import CNN, MLP
from tests.models.transformers_zoo import KINDS, TRANSFORMERS, make_gpt2, transformer
from tests.nightly import IS_NIGHTLY
from tests.oracle import PerSampleGradients, group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors

EAGER = CompileOptions(backend="eager")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
MODES = ("full", "bitfit")
CLIPPINGS = ("auto-s", "auto-v", "abadi")
GROUPINGS = ("flat", "per-layer")
NUM_SAMPLES = 4
# Large enough that "abadi" leaves some samples alone, small enough that it clips others.
MAX_GRAD_NORM = 4.0
# A group whose norm is below this share of the sample's is zero in exact arithmetic; see `oracle.comparison`.
NO_GRADIENT = 1e-9

DTYPES = (torch.float64, torch.float32)
# One of each way to read: from both sides, from the left, from one sequence to another, and an image; by night all.
OF_EACH_WAY = KINDS if IS_NIGHTLY else ("bert", "gpt2", "t5", "vit")
Setting = tuple[str, str, str, torch.dtype]


def settings() -> list[tuple[Architecture, Setting]]:
    """Architectures with mode, clipping, grouping and dtype: all by night, and else all pairs of any two of these.

    Modes and dtypes change from architecture to architecture, so that all together meet every setting.
    """
    if IS_NIGHTLY:
        return [(a, s) for a in TRANSFORMERS for s in product(MODES, CLIPPINGS, GROUPINGS, DTYPES)]
    found = []
    for a, architecture in enumerate(TRANSFORMERS):
        for c, clipping in enumerate(CLIPPINGS):
            for g, grouping in enumerate(GROUPINGS):
                mode, dtype = MODES[(a + c + g) % 2], DTYPES[(a // 2 + g + (c == 2)) % 2]
                found.append((architecture, (mode, clipping, grouping, dtype)))
    return found


def name_of(architecture: Architecture, setting: Setting) -> str:
    *words, dtype = setting
    return "-".join([str(architecture), *words, str(dtype).removeprefix("torch.")])


def test_any_two_settings_are_met_with_every_architecture():
    for architecture in TRANSFORMERS:
        met = [setting for a, setting in settings() if a is architecture]
        for (i, first), (j, second) in combinations(enumerate((MODES, CLIPPINGS, GROUPINGS, DTYPES)), 2):
            assert {(s[i], s[j]) for s in met} == set(product(first, second))
    assert {setting for _, setting in settings()} == set(product(MODES, CLIPPINGS, GROUPINGS, DTYPES))


def make_batch(architecture: Architecture, num_samples: int = NUM_SAMPLES) -> Batch:
    torch.manual_seed(2)
    return architecture.batch(num_samples)


@cache
def reference(architecture: Architecture, added_biases: bool) -> PerSampleGradients:
    """Gradients of all parameters, which every mode, clipping function, grouping and dtype is measured against."""
    model = architecture.build(torch.float64)
    if added_biases:
        dp_compile(model, "bitfit", add_biases=True, options=EAGER)
    return loop(architecture, model, make_batch(architecture))


def loop(architecture: Architecture, model: nn.Module, batch: Batch) -> PerSampleGradients:
    batch = batch.to(torch.float64)
    return per_sample_gradients(
        model, lambda twin, b: architecture.losses(twin, batch.sample(b)).sum(), batch.num_samples
    )


def train_once(architecture: Architecture, model: nn.Module, batch: Batch, mode: str, **arguments) -> DPModule:
    add_biases = mode == "bitfit" and not architecture.has_biases
    arguments = {"options": EAGER, "max_grad_norm": MAX_GRAD_NORM, **arguments}
    module = dp_compile(model, mode, add_biases=add_biases, **arguments)
    architecture.losses(module, batch).sum().backward()
    return module


def check_gradients(
    model: nn.Module, module: DPModule, samples: PerSampleGradients, clipping: str, grouping: str, tolerance: float
) -> None:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    missing = [name for name in trained if model.get_parameter(name).grad is None]
    assert trained
    assert not missing, f"no gradient: {missing}"
    groups = group_names(trained, grouping)
    expected = samples.clipped_sum(groups, clipping, MAX_GRAD_NORM)
    found = {name: model.get_parameter(name).grad for name in trained}
    norms = samples.norms(groups)
    scale = norms.square().sum(1, keepdim=True).sqrt()
    reported = module.grad_norms.double().reshape(norms.shape)
    assert ((reported - norms).abs() <= tolerance * norms.clamp_min(NO_GRADIENT * scale) + tolerance * scale).all()
    undefined = groups_without_gradient(groups, norms, scale) if clipping == "auto-v" else set()
    errors = relative_errors(found, {name: e for name, e in expected.items() if name not in undefined})
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not wrong, wrong
    for name in undefined:
        assert found[name].norm() <= MAX_GRAD_NORM * len(samples.samples) * 1.01


def groups_without_gradient(groups, norms: torch.Tensor, scale: torch.Tensor) -> set[str]:
    """Parameters of groups that are zero in exact arithmetic: R / n makes noise of norm R of them, in any library."""
    return {
        name
        for k, members in enumerate(groups.values())
        if (norms[:, k : k + 1] < NO_GRADIENT * scale).any()
        for name in members
    }


@pytest.mark.parametrize(("architecture", "setting"), settings(), ids=[name_of(*case) for case in settings()])
def test_transformers_are_exact(architecture, setting):
    mode, clipping, grouping, dtype = setting
    model = architecture.build(dtype)
    samples = reference(architecture, mode == "bitfit" and not architecture.has_biases)
    batch = make_batch(architecture).to(dtype)
    module = train_once(architecture, model, batch, mode, clipping=clipping, grouping=grouping)
    check_gradients(model, module, samples, clipping, grouping, TOLERANCE[dtype])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("architecture", [CNN, MLP], ids=str)
@pytest.mark.parametrize("grouping", ["flat", "per-param"])
def test_plain_models_are_exact(architecture, mode, grouping):
    model = architecture.build()
    batch = make_batch(architecture).to(torch.float64)
    module = train_once(architecture, model, batch, mode, clipping="auto-v", grouping=grouping)
    check_gradients(model, module, reference(architecture, False), "auto-v", grouping, TOLERANCE[torch.float64])


@pytest.mark.parametrize("name", [name for name in OF_EACH_WAY if name != "vit"])
def test_transformers_without_attention_mask_are_exact(name):
    architecture = transformer(name, masked=False)
    model = architecture.build()
    module = train_once(architecture, model, make_batch(architecture), "full", clipping="auto-s")
    check_gradients(model, module, reference(architecture, False), "auto-s", "flat", TOLERANCE[torch.float64])


@pytest.mark.parametrize("name", OF_EACH_WAY)
def test_batches_of_other_sizes_are_exact_without_compiling_again(name):
    architecture = transformer(name)
    model = architecture.build()
    module = train_once(architecture, model, make_batch(architecture).to(torch.float64), "full")
    for num_samples in (7, 1, 2, 0):
        model.zero_grad(set_to_none=True)
        batch = make_batch(architecture, num_samples).to(torch.float64)
        outputs = module(**batch.inputs)
        assert len(outputs.logits) == num_samples
        architecture.loss(outputs, batch.labels).sum().backward()
        assert module.grad_norms.shape == (num_samples,)
        check_gradients(model, module, loop(architecture, model, batch), "auto-s", "flat", TOLERANCE[torch.float64])
    assert len(module._calls.compiler.rewritings) == 1


@pytest.mark.parametrize(
    ("name", "mode"), [(k, m) for i, k in enumerate(KINDS) for j, m in enumerate(MODES) if IS_NIGHTLY or i % 2 == j]
)
def test_dropout_is_accepted(name, mode):
    architecture = transformer(name, dropout=0.1)
    model = architecture.build()
    module = train_once(architecture, model, make_batch(architecture).to(torch.float64), mode)
    for parameter_name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, parameter_name
        assert p.grad is None or p.grad.isfinite().all()
    norms = module.grad_norms
    assert norms.isfinite().all()
    assert (norms > 0).all()


@pytest.mark.parametrize("strategy", ["ghost", "materialise"])
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "vit"])
def test_options_change_no_result(name, strategy):
    architecture = transformer(name)
    model = architecture.build()
    options = CompileOptions(backend="eager", norm_strategy=strategy, memory_budget=0.3)
    module = train_once(
        architecture, model, make_batch(architecture).to(torch.float64), "full", clipping="auto-v", options=options
    )
    check_gradients(model, module, reference(architecture, False), "auto-v", "flat", TOLERANCE[torch.float64])


def largest_tensors(module: DPModule, stage: str) -> list[tuple[int, ...]]:
    """Shapes of all values of a stage, with the sizes that the batch was captured with."""
    found = []
    for node in module.graphs[stage].nodes:
        values = torch.utils._pytree.tree_leaves(node.meta.get("val"))
        shapes = [v.shape for v in values if isinstance(v, torch.Tensor)]
        found += [tuple(s if isinstance(s, int) else s.node.hint for s in shape) for shape in shapes]
    return found


def test_gpt2_with_the_real_vocabulary_never_holds_a_table_for_each_sample():
    vocabulary, width, num_samples = 50257, 256, 3
    architecture = transformer("gpt2")
    torch.manual_seed(1)
    model = make_gpt2(vocab_size=vocabulary, width=width, heads=4).double().train()
    assert model.lm_head.weight is model.transformer.wte.weight
    torch.manual_seed(2)
    ids = torch.randint(0, vocabulary, (num_samples, 7))
    ids[:, 3] = ids[:, 1]  # a token that repeats meets itself in the norm
    batch = Batch({"input_ids": ids}, ids)
    module = train_once(architecture, model, batch, "full", clipping="auto-v")
    held = largest_tensors(module, list(module.graphs)[-1])
    assert held
    positions = ids.shape[1]
    for shape in held:
        # logits [B, T, V] and the table [V, d] itself are as large as anything gets
        allowed = max(num_samples * positions * vocabulary, vocabulary * width)
        assert math.prod(shape) <= allowed, shape
        assert not ({vocabulary, width} <= set(shape) and num_samples in shape), shape
    check_gradients(model, module, loop(architecture, model, batch), "auto-v", "flat", TOLERANCE[torch.float64])


@pytest.mark.inductor
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "clipping", "grouping"),
    [
        ("gpt2", "full", "auto-s", "flat"),
        ("gpt2", "bitfit", "auto-v", "per-layer"),
        ("bert", "bitfit", "abadi", "flat"),
        ("opt", "full", "abadi", "per-layer"),
    ],
)
def test_inductor_is_exact(name, mode, clipping, grouping):
    architecture = transformer(name)
    model = architecture.build()
    batch = make_batch(architecture).to(torch.float64)
    options = CompileOptions(backend="inductor")
    module = train_once(architecture, model, batch, mode, clipping=clipping, grouping=grouping, options=options)
    samples = reference(architecture, False)
    check_gradients(model, module, samples, clipping, grouping, TOLERANCE[torch.float64])
