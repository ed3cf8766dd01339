"""Quality figures of the model, the data and the method: one verb per file, each with a command
that prints it.
"""
