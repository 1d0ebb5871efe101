"""Regularizers: penalties on weights, layer by layer, or on features, and their coefficients."""
