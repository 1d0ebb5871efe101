"""Evaluation on frozen representations: splits, metrics and probes."""
