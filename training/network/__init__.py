"""The network: encoder, heads, losses, and the directory in which a model is kept.

Belongs here: torch modules and what they are asked in training. Not here: the training loop
(`training.fit`) and answers in service (`training.scoring`).
"""
