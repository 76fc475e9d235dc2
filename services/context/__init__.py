"""The context of a request: settings, store, pseudonyms, clock, lookups of users, and answers.

Belongs here: what every route needs whatever it is about. Not here: subjects such as the catalogue
or campaigns; a context hands them on by their class and imports none of them.
"""
