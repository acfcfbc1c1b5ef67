"""What runs leave behind, and how to read it: the metadata store, outputs, results, lineage, comparison."""
