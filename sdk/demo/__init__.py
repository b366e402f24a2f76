"""What `trunkline demo` runs."""
