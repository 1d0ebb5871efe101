"""SimCLR on docstrings with stronger views: three of ten words are deleted; all else as simclr_text."""

from pathlib import Path

from sslcollapse import extend

recipe = extend(
    Path(__file__).with_name("simclr_text.py"),
    dict(name="simclr_deletion_text", domain=dict(views=dict(word_deletion=0.3))),
)
