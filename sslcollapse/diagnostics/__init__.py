"""Diagnostics: spectra, ranks and gradients, layer by layer."""
