"""Encoders: one view in, representations [N, out_dim] out."""
