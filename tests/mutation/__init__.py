"""Changes planted in the code, one at a time: the focused tests of its module must notice each."""
