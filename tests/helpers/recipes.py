"""The modules that hold a recipe."""

from distillery.components.contracts import CONTRACTS
from distillery.components.registry import KINDS, index

COMPONENTS = sorted(
    module
    for kind in KINDS
    if "Recipe" in CONTRACTS[kind].__annotations__
    for module in set(index(kind).values())
)
STAGES = [f"distillery.stages.{stage}" for stage in ("data", "whiten", "embed")]
