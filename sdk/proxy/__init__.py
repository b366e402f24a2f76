"""What a program holds: `Dial`, connections and the ways to their workers."""
