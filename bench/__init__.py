"""Comparisons with other track finders, and timings: run from the root of the repository."""
