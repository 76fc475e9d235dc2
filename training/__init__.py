"""The learned half of the profile: encoder, data sets, training loop and evaluation.

May import ``feature_repo``; never ``services``.
"""
