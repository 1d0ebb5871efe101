"""Objectives: losses over branches; they own no network."""
