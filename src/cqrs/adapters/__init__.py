"""Bridges to libraries, one module each."""
