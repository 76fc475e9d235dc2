"""Evaluation: metrics, baselines, calibration, and the statistics of experiments.

Belongs here: how good an answer is. Not here: comparisons with peers (`training.lab.comparison`).
"""
