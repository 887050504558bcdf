"""Observations in words: one describer for each family of environments, and a generic one for any numbers."""
