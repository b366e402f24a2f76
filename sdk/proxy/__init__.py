"""The objects in the hands of a program: `Dial`, connections and the ways to their workers."""
