"""Campaigns: who of an audience gets an offer, who is held out, and why.

Pure, without HTTP, store or models: what a campaign is (`campaign`), reading one (`language`), the
hashes that assign users to arms (`assignment`), hours in which nobody is written to
(`quiet_hours`), and what follows for one user (`decision`). The rest reads or writes a campaign's
keys, or is what HTTP says of it.
"""
