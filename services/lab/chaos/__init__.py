"""Chaos: the real service while its processes die, and the judge of what is left.

Belongs here: the harm, its clients, the verdict. Not here: speed (`services.lab.bench`), or faults
under a fake clock, which the tests have.
"""
