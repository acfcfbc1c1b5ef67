"""What a file says about itself, read in few steps before any decoder sees it. What would take too long is refused."""
