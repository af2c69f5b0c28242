"""`mmzero dataset`: a finished or a running log as a dataset that other programs train on.

A dataset is a projection as everything else is: the same events, filter and options give the same
bytes. Files appear whole; the manifest comes last and says that all are there.
"""
