"""Means, intervals, pairs and correlations."""
