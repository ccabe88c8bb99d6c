"""What the commands share: options, output, and the request or kernel that they are about."""
