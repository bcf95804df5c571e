"""What everything else speaks of: messages, their identity and contract, dead letters, outcomes.

Imports neither SQLAlchemy nor a driver.
"""
