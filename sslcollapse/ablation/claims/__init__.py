"""What an ablation claims, and whether its records bear it out."""
