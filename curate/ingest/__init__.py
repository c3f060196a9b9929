"""What lies in the buckets: listing, source lists, local copies."""
