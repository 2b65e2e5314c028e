"""Whole networks, each a few lines of the algebra that show its architecture."""
