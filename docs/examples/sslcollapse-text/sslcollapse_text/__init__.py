"""Texts for sslcollapse: a domain, datasets and encoders from outside of the package."""

from __future__ import annotations

from sslcollapse import REGISTRIES, Registry

__version__ = "0.1.0"

TEXT_DATASETS = REGISTRIES.add(
    Registry(
        "text_dataset",
        {"docstrings": "sslcollapse_text.docstrings:Docstrings", "text_table": "sslcollapse_text.table:TextTable"},
    )
)
"""Datasets of texts by name; other packages add theirs by entry points of the group ``sslcollapse.text_dataset``."""
