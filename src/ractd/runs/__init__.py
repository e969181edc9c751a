"""Run directories: what is measured in them and kept."""
