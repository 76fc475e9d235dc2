"""HTTP basics that every request shares: key, bounds, body, errors, description.

Belongs here: what no single route owns. Not here: the routes, and the application that is made
of them (`services.gateway.application`).
"""
