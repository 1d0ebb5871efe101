"""The layer map: which matrices a network multiplies with, by name and in order of depth."""
