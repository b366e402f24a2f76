"""Databases by Python's own interfaces: PEP 249 (`trunkline.dbapi`) and SQLAlchemy."""
