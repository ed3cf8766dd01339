"""Pictures of two objects: does a region find what is in it?

two_objects.py: the pictures, generated or collages, and which records show an object; alone.py: the
same objects each in a picture of its own; cutting.py: cutting out what is drawn; pooled.py: methods
asked about a fixed pool; tables.py, own_tables.py: what the lines of both verbs say.
"""
