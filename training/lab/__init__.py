"""The laboratory of models: comparisons with peers, and studies of parts.

Not in the service's install.
"""
