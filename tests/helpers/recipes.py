"""Where the recipe types are: modules and names."""

from distillery.components.contracts import WITH_RECIPE
from distillery.components.registry import index

RECIPES = [
    *sorted({(module, "Recipe") for kind in WITH_RECIPE for module in index(kind).values()}),
    *((f"distillery.stages.{s}", f"{s.title()}Recipe") for s in ("data", "whiten", "embed")),
]
