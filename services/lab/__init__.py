"""The laboratory of the service: benches, and faults made on purpose.

Not in the service's install.
"""
