"""Algorithms on distributions; they know no model class."""
