"""Addresses (being written)."""
