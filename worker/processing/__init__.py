"""From a batch of messages to one committed transaction: load, decide, write."""
