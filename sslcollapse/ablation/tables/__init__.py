"""Records as pages, CSV and LaTeX."""
