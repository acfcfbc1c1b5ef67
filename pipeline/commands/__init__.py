"""What each `fpn` command takes and does, a module for each group of them."""
