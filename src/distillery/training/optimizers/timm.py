"""Any optimiser of timm by its own name: `timm:lion`, `timm:nadamw`, `timm:lookahead_radam`."""

from __future__ import annotations

from typing import Any

import torch

from distillery.errors import PlanError, nearest
from distillery.training.recipe import Optimizer

NAMES = ("timm:*",)


def build(name: str, groups: list[dict[str, Any]], recipe: Optimizer) -> torch.optim.Optimizer:
    """The optimiser `timm:...`; reads lr, and momentum and betas where the optimiser has them.

    An optimiser with another number of betas than two has timm's own, and `nesterov` is not read:
    timm has names for it. Whether the weight decay is decoupled is the optimiser's.

    Raises:
        PlanError: timm is not installed or has no such optimiser, the optimiser needs a package
            that is not installed, or second derivatives, which the training loop does not compute.
    """
    _, _, own_name = name.partition(":")
    try:
        import timm.optim  # optional, and seconds to import: only where asked for
    except ImportError:
        raise PlanError(f"optimizer '{name}' needs timm: pip install timm") from None
    library: Any = timm.optim  # its type says nothing of what it exports
    base = own_name.removeprefix("lookahead_")
    if base not in (known := library.list_optimizers()):
        raise PlanError(f"timm has no optimizer '{own_name}': {nearest(own_name, known)}")
    info = library.get_optimizer_info(base)
    if info.second_order:
        raise PlanError(f"optimizer '{name}' needs second derivatives; choose another")
    betas = {"betas": recipe.betas} if info.has_betas and info.num_betas == 2 else {}
    options = {"lr": recipe.lr, "momentum": recipe.momentum, **betas}
    try:
        return library.create_optimizer_v2(groups, own_name, **options)
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise PlanError(f"optimizer '{name}' cannot be built: {error}") from None
