"""Recipes: plain dicts that are loaded, extended, overridden, checked and hashed."""

from sslcollapse.recipe.check import stated_only
from sslcollapse.recipe.files import from_json, load, to_json
from sslcollapse.recipe.identity import (
    changed_defaults,
    changes_since,
    difference,
    digest,
    identify,
    learnt,
    recipe_hash,
)
from sslcollapse.recipe.recipe import (
    assign,
    components,
    extend,
    override,
    resolve,
    resolve_data,
)

__all__ = [
    "assign",
    "changed_defaults",
    "changes_since",
    "components",
    "difference",
    "digest",
    "extend",
    "from_json",
    "identify",
    "learnt",
    "load",
    "override",
    "recipe_hash",
    "resolve",
    "resolve_data",
    "stated_only",
    "to_json",
]
