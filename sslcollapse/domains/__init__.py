"""Domains: where batches of views come from. Nothing outside this folder knows what the data are."""
