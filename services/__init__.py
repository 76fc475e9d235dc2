"""Services: HTTP gateway, updater, event log, command line and settings.

May import ``training`` and ``feature_repo``; nothing imports this package.
"""
