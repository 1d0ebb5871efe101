"""Where rank is measured."""
