"""The core in pure Python, for anywhere without a compiler: the twin of the compiled package ``_cpool``.

The two have the same modules, classes and methods in the same order and must answer alike: a change to one is a
change to both.
"""
