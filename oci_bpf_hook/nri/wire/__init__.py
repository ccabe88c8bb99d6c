"""What an NRI plugin and its engine say to each other: frames, calls, and their messages."""
