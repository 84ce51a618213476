"""Inductor's `compile_fx`, with one thing changed: what the forward writes into its inputs is an output of the graph.

Inductor's own asks AOTAutograd to keep such a write in the graph, as a `copy_` into the placeholder. Then nobody who
reads the outputs sees it; the partitioner saves the placeholder as it was and recomputes from it what was computed
before the write; and where it saves the value written, which is the input's own memory, the backward writes into that.
As an output the new value is an ordinary one, and is copied into the input after the forward has run.

There is no setting for it, so these are the steps of `torch._inductor.compile_fx._compile_fx_main` for training, with
the functions that it takes them from. Read in torch 2.11, 2.12 and 2.13.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch._dynamo.config
import torch._functorch.config
import torch._inductor.compile_fx as steps
import torch._inductor.config as settings
import torch.compiler.config
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo import compiled_autograd
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext, tracing
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx._lazy_graph_module import _use_lazy_graph_module

from dpgraph.torch_compat.donations import keep_what_is_saved_twice
from dpgraph.torch_compat.engine import without_autocast
from dpgraph.torch_compat.layouts import saves_varying_views

__all__ = ["compile_fx_with_writes_returned"]

Compiled = Callable[..., Any]


def compile_fx_with_writes_returned(
    gm: GraphModule,
    inputs: Sequence[Any],
    *,
    config_patches: Mapping[str, Any],
    decompositions: Callable[[], dict[Any, Any]],
    around: Callable[[Sequence[Any]], list[Any]],
) -> Compiled:
    """Compile what Dynamo captured for training.

    Args:
        gm: what Dynamo captured.
        inputs: its inputs, fake.
        config_patches: settings of Inductor, for the joint graph and for both halves, whenever those are compiled.
        decompositions: what the joint graph is traced with. Named in a module, as a cache's key needs it.
        around: what becomes of the backward's outputs before autograd has them.
    """
    with settings.patch(dict(config_patches)), _as_compile_fx_does(inputs) as arguments:
        if "get_decomp_fn" in steps._CompileFxKwargs.__annotations__:  # not in torch 2.11
            arguments["get_decomp_fn"] = decompositions
        # a backward may be compiled later, out of this scope
        inner = settings.patch(dict(config_patches))(partial(steps.compile_fx_inner, **arguments))
        gm = steps.run_pre_grad_passes(gm, inputs)
        extra = _make_extra(gm)

        def compile_forward(half: GraphModule, half_inputs: Sequence[Any]) -> Any:
            layouts = settings.patch(layout_optimization=settings.layout_optimization and not saves_varying_views(half))
            return steps.compile_fx_forward(
                half,
                half_inputs,
                num_orig_model_outputs=steps.get_num_model_outputs(gm),
                num_example_inputs=len(inputs),
                compiler_config_extra=extra,
                inner_compile=layouts(inner),
            )

        def compile_backward(half: GraphModule, half_inputs: Sequence[Any]) -> Any:
            key = f"{torch.compiler.config.cache_key_tag}{keep_what_is_saved_twice(half)}"
            with torch.compiler.config.patch(cache_key_tag=key):  # type: ignore[attr-defined]
                run = steps.compile_fx_backward(half, half_inputs, compiler_config_extra=extra, inner_compile=inner)

            def call(args: list[Any]) -> list[Any]:
                with without_autocast():
                    return around(run(args))

            return _boxed(call)

        backend = aot_autograd(
            fw_compiler=compile_forward,
            bw_compiler=compile_backward,
            decompositions=decompositions(),
            partition_fn=steps.partition_fn,
            keep_inference_input_mutations=False,
        )
        compiled: Compiled = backend(gm, inputs)
    return compiled


def _boxed(run: Callable[[list[Any]], Any]) -> Compiled:
    """A function that AOTAutograd gives its inputs as one list, which it may empty."""
    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _make_extra(gm: GraphModule) -> Any:
    """What forward and backward tell one another; torch 2.11 makes it of the settings, later ones of the graph."""
    make: Callable[..., Any] = steps.create_compiler_config_extra
    return make(settings if "config" in inspect.signature(make).parameters else gm)


@contextmanager
def _as_compile_fx_does(inputs: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """What is set while Inductor compiles; gives the arguments of `compile_fx_inner` for a wrapper in C++."""
    wrappers: dict[str, Any] = {name: True for name in ("cpp_wrapper", "fx_wrapper") if getattr(settings, name, False)}
    context = TracingContext.try_get()
    assert context is not None and isinstance(context.fake_mode, FakeTensorMode), "no capture is under way"
    joint = {"unlift_effect_tokens": True, "selective_decompose": getattr(settings, "selective_decompose", False)}
    with (
        settings.patch(steps.get_cpp_wrapper_config() if wrappers else {}),
        V.set_real_inputs(inputs) if wrappers else nullcontext(),
        _use_lazy_graph_module(torch._dynamo.config.use_lazy_graph_module),
        enable_python_dispatcher(),
        V.set_fake_mode(context.fake_mode),
        tracing(context),
        compiled_autograd._disable(),
        torch._functorch.config.patch(joint),
    ):
        yield wrappers
