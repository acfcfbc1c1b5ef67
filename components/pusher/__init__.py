"""Where blessed models go: numbered versions in a folder, each whole or not there."""
