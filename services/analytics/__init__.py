"""Analysis of behaviour as the service gives it: routes, the cube, the report's page.

Belongs here: answers over HTTP, as CSV and as pictures. Not here: the analyses themselves
(`feature_repo.analytics`).
"""
