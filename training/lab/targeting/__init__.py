"""Targeting models: whom a coupon, a message or a win-back should go to.

Every model reads profile features and the learned state as of a moment, by point-in-time join;
what happened at or after the moment changes none of them.
"""
