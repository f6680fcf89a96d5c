"""Readers of raw data sets, one module a format, and what they have in common (``base``)."""
