"""Regularizers: penalties on weights, layer by layer, and their coefficients."""
