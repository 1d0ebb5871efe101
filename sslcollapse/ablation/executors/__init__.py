"""Where the runs of an ablation take place."""
