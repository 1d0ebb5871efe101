"""Which layers of a finished network have lost rank: weights from a file, and outputs where there are data."""
