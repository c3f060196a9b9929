"""Model cards and the files they name."""
