"""What runs leave, and how it is read: the metadata store, outputs, results, lineage, comparison."""
