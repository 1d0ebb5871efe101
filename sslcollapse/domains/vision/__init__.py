"""Images: datasets, views and batches."""
