"""Fitting: the training loop under Ray Train and alone, its optimizer and its workers.

Belongs here: from prepared arrays to a model directory. Not here: the networks
(`training.network`).
"""
