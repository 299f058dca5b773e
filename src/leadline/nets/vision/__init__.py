"""Nets for pictures of floats, (n, c, h, w) -> (n, outputs), each a table of numbers and a page of code."""
