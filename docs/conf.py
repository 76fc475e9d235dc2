"""The site of these pages: Sphinx reads them, `make docs` builds them."""

project = "Portrait"
html_title = "Portrait"
html_theme = "furo"
extensions = ["myst_parser"]
myst_heading_anchors = 4
exclude_patterns = ["accuracy/*"]
suppress_warnings = ["toc.not_included"]  # decisions are listed by their own page
