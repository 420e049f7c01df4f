"""DD-Ranking's robustness scores (arXiv 2505.13300), from accuracies that our own protocol measures.

They separate what a distilled set is worth from what its labels and its evaluation add. Not comparable with the leaderboard:
there the best epoch on the test set counts, and learning rates are searched on that set.

Deviation: the scores are of fractions, as the paper defines them; the package ddranking 0.2.0 feeds percent into the
exponential, which pins its scores near -0.157 or lets them explode. Random images are one draw, not one per repeat.
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
SHARE = 0.5  # w and gamma


def hard_label_recovery(real_hard: float, syn_hard: float) -> float:
    """What hard labels lose: accuracy on the real data minus that on the distilled set with hard labels, both in percent.

    A fraction in [-1, 1]; low is good.
    """
    return (real_hard - syn_hard) / 100


def improvement_over_random(syn_any: float, rdm_any: float) -> float:
    """Accuracy on the distilled set minus that on as many random real images, labels and treatment alike, both in percent.

    A fraction in [-1, 1]; high is good.
    """
    return (syn_any - rdm_any) / 100


def label_robust_score(ior: float, hlr: float, w: float = SHARE) -> float:
    """LRS of alpha = w IOR - (1 - w) HLR, fractions: in [0, 1], high is good."""
    return _normalised(w * ior - (1 - w) * hlr)


def augmentation_robust_score(augmented: float, plain: float, gamma: float = SHARE) -> float:
    """ARS of beta = gamma IOR + (1 - gamma) IOR without augmentation, fractions: in [0, 1], high is good."""
    return _normalised(gamma * augmented + (1 - gamma) * plain)


def robustness(accuracies: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, percent by the names in `ACCURACIES`, with the scores by those in `SCORES`.

    Without augmentation: the recipe's augment is empty. Deviation: DD-Ranking also drops the mixing of images then, which
    belongs to our protocols and stays.
    """
    real_hard, syn_hard, syn_any, rdm_any, syn_noaug, rdm_noaug = found = [
        accuracies[name] for name in ACCURACIES
    ]
    hlr, ior = hard_label_recovery(real_hard, syn_hard), improvement_over_random(syn_any, rdm_any)
    ars = augmentation_robust_score(ior, improvement_over_random(syn_noaug, rdm_noaug))
    scores = (hlr, ior, label_robust_score(ior, hlr), ars)
    return dict(zip((*ACCURACIES, *SCORES), (*found, *scores), strict=True))


def _normalised(value: float) -> float:
    """From [-1, 1] to [0, 1]: (e^value - e^-1) / (e - e^-1). Nothing gained, nothing lost (0) is 0.268941."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))
