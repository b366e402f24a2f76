"""Connections that execute statements: the line, transactions, queries."""
