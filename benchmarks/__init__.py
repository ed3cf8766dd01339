"""Speed and memory of the embedded index, each with a command that prints it."""
