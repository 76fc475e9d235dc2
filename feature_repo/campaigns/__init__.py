"""Campaigns: who of an audience gets an offer, who is held out, and why.

What a campaign is (`campaign`), reading one (`language`), the hashes that assign users to arms
(`assignment`), hours in which nobody is written to (`quiet`), and what follows from all that for
one user (`decision`). Nothing here knows of HTTP, of the store, or of models.
"""
