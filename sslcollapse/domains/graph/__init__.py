"""The graph domain: datasets, views by edge dropping and feature masking, batches."""
