"""What a whitening is made with."""

from __future__ import annotations

from dataclasses import dataclass

from distillery.recipe import NonNegative


@dataclass(frozen=True)
class Recipe:
    """ridge: added to every eigenvalue, in units of their mean; 0.1 in the code of PoDD and RaT-BPTT."""

    ridge: NonNegative = 0.1
