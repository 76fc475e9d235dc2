"""How a recommendation is made: one stage a word, one file a stage.

``candidates → score → rules → diversify → explain → respond``. `recommender` puts them in
order. Nothing here reads a store or waits: what is known of a user comes in as a `Shopper`,
items as columns (`assortment`).
"""
