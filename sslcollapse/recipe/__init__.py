"""Recipes: plain dicts that are loaded, extended, overridden, checked and hashed."""

from sslcollapse.recipe.recipe import (
    assign,
    changed_defaults,
    changes_since,
    components,
    difference,
    digest,
    extend,
    from_json,
    learnt,
    load,
    override,
    recipe_hash,
    resolve,
    resolve_data,
    stated_only,
    to_json,
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
    "learnt",
    "load",
    "override",
    "recipe_hash",
    "resolve",
    "resolve_data",
    "stated_only",
    "to_json",
]
