"""The SQL of a batch, for both databases: a file for each group of tables."""
