"""Keep torch's compiler out of jobs, which compile nothing.

torch's optimisers import it when the first is made, half of a small job's time, to tell it where
to stop tracing. Run eagerly, what they ask of it does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def leave_compiler_out() -> None:
    """Let torch's optimisers run without `torch._dynamo`.

    Where another version of torch is built otherwise, nothing is changed and they import it.
    Compiling a step itself would then trace into it; a model may be compiled as ever.
    """
    from torch import optim

    for name in _METHODS:
        inner = getattr(getattr(optim.Optimizer, name), "__wrapped__", None)
        if inner is not None:  # where torch keeps what the compiler makes of it
            inner.__dynamo_disable = inner
    for kind in vars(optim).values():
        step = vars(kind).get("step") if isinstance(kind, type) else None
        code = getattr(step, "__code__", None)
        if step is not None and code is not None and code.co_name == "_use_grad":
            kind.step = _eager(step.__wrapped__)


def _eager(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step under the gradient mode of its optimiser, as torch has it, without graph breaks."""

    @functools.wraps(step)
    def run(self: Any, *arguments: Any, **named: Any) -> Any:
        import torch

        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *arguments, **named)

    return run
