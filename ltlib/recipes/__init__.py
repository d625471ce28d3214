"""Published settings, table rows, and the published numbers with their source."""

from ltlib.recipes.published import published_results, reference_curves
from ltlib.recipes.settings import RECIPES, get_recipe, smoke
from ltlib.recipes.tables import TABLES, Row, Table, get_table, published_row

__all__ = [
    "RECIPES",
    "TABLES",
    "Row",
    "Table",
    "get_recipe",
    "get_table",
    "published_results",
    "published_row",
    "reference_curves",
    "smoke",
]
