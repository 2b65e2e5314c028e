"""Geometry for a model that was not declared: rules, logical matrices, and measured responses."""
