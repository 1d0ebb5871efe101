"""Settings of Sphinx: Markdown by MyST, the theme Furo, the reference from docstrings by autodoc and Napoleon."""

import sslcollapse

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "entries",
]
project = "sslcollapse"
author = "the authors of sslcollapse"
version = release = sslcollapse.__version__
language = "en"
exclude_patterns = ["docs/examples/*/tests", "recipes"]
suppress_warnings = ["myst.header"]  # a table that a command writes for pages to include begins at its second level

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shapes", "params_style")]
napoleon_include_init_with_doc = False
napoleon_use_ivar = True  # what Attributes names and what a member's own docstring says would be two entries

html_theme = "furo"
html_title = f"sslcollapse {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
