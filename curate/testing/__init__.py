"""Public test kit: footage with known truth, a sample bucket, a contract checker for stages."""
