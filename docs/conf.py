"""Configure the documentation, which this command builds: ``python -m sphinx -W -b html docs docs/_build``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # the code beside these pages, and what draws reference pages from it

project = "graphcast-batch"
author = "the authors of graphcast-batch"
release = version = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated", "notebook_pages"]
exclude_patterns = ["_build"]
nitpick_ignore_regex = [("py:.*", ".*")]  # nothing is looked up on other sites, so that it builds without a network
smartquotes = False  # options begin with two hyphens

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a dataclass in a list, not each as an object of its own
default_role = "code"  # what docstrings put in single backticks

html_theme = "furo"
html_title = f"graphcast-batch {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
