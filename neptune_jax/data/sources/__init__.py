"""Where images come from. Start with `opening.open_source`.

Image files alone need `files` and what it imports, and not the library of prepared data sets.
"""
