"""Training shards: WebDataset tars with Parquet sidecars, and the buckets they are sorted in."""
