"""DD-Ranking's robustness scores (arXiv 2505.13300), from accuracies of our own protocol.

They separate what a distilled set is worth from what its labels and its evaluation add. They are
not comparable with the leaderboard: there the best epoch on the test set counts, and learning rates
are searched on that set.

Deviation: the scores are of fractions, as the paper defines them; the package ddranking 0.2.0 feeds
percent into the exponential, which pins its scores near -0.157 or lets them explode.
Deviation: random images are one draw, not one per repeat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ACCURACIES = (
    "acc_real_hard",
    "acc_syn_hard",
    "acc_syn_any",
    "acc_rdm_any",
    "acc_syn_noaug",
    "acc_rdm_noaug",
)
SCORES = ("hlr", "ior", "lrs", "ars")
SHARE = 0.5  # the paper's w and gamma


def hard_label_recovery(real_hard: float, syn_hard: float) -> float:
    """HLR, what hard labels lose: a fraction in [-1, 1]; low is good.

    Args:
        real_hard: accuracy on the real data, percent.
        syn_hard: accuracy on the distilled set with hard labels, percent.
    """
    return (real_hard - syn_hard) / 100


def improvement_over_random(syn_any: float, rdm_any: float) -> float:
    """IOR, what distillation gains: a fraction in [-1, 1]; high is good.

    Args:
        syn_any: accuracy on the distilled set, percent.
        rdm_any: accuracy on as many random real images, labels and treatment alike, percent.
    """
    return (syn_any - rdm_any) / 100


def label_robust_score(ior: float, hlr: float, w: float = SHARE) -> float:
    """LRS, of w IOR - (1 - w) HLR: a fraction in [0, 1]; high is good.

    Args:
        ior: improvement over random, a fraction.
        hlr: hard label recovery, a fraction.
        w: weight of IOR.
    """
    return _normalised(w * ior - (1 - w) * hlr)


def augmentation_robust_score(augmented: float, plain: float, gamma: float = SHARE) -> float:
    """ARS, of gamma IOR + (1 - gamma) IOR without augmentation: in [0, 1]; high is good.

    Args:
        augmented: improvement over random, a fraction.
        plain: the same without augmentation, a fraction.
        gamma: weight of the former.
    """
    return _normalised(gamma * augmented + (1 - gamma) * plain)


def robustness(accuracies: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, and the scores that follow from them.

    Deviation: without augmentation the recipe's augment is empty; DD-Ranking also drops the mixing
    of images then, which belongs to our protocols and stays.

    Args:
        accuracies: percent, by the names in `ACCURACIES`.

    Returns:
        The same accuracies, and fractions by the names in `SCORES`.
    """
    ordered = [accuracies[name] for name in ACCURACIES]
    real_hard, syn_hard, syn_any, rdm_any, syn_noaug, rdm_noaug = ordered
    hlr, ior = hard_label_recovery(real_hard, syn_hard), improvement_over_random(syn_any, rdm_any)
    ars = augmentation_robust_score(ior, improvement_over_random(syn_noaug, rdm_noaug))
    scores = (hlr, ior, label_robust_score(ior, hlr), ars)
    return dict(zip((*ACCURACIES, *SCORES), (*ordered, *scores), strict=True))


def _normalised(value: float) -> float:
    """From [-1, 1] to [0, 1]: (e^value - e^-1) / (e - e^-1). 0 (no gain, no loss) is 0.268941."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))
