"""Recommendation in stages: one stage a word, one file a stage.

``candidates → score → rules → diversify → explain → respond``. `recommender` puts them in
order. No stage reads a store or waits: what is known of a user comes in as a `user_context`, items
as columns (`assortment`). `routes` and `explanation_routes` are how they are asked,
`request_context` reads who asks.
"""
