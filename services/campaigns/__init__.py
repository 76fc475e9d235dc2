"""Campaigns as the service runs them: routes, what the store keeps, decisions, reports.

Belongs here: whatever reads or writes a campaign's keys, and what HTTP says of it. Not here:
what a campaign is and how it is evaluated (`services.campaigns`).
"""
