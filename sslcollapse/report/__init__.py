"""Pages to read: runs and ablations as one HTML file with tables and plots, and every number beside it as CSV."""
