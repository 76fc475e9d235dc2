"""The gateway: the HTTP application, and the routes of events, profiles and operations.

Belongs here: putting the application together. Not here: routes of a subject that has a room.
"""
