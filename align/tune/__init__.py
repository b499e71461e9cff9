"""Overlap, aggregation and filters chosen by what they do to a reward model.

`handloom tune-filters` compares settings on the votes there are; `handloom plan` says how to buy
the next ones.
"""
