"""Plans and runs: what is missing from the tables, computed inline or on Ray."""
