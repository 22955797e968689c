"""The commands, a module each: thin shells that parse options and print."""
