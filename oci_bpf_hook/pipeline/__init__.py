"""The steps from a request to its record, which the hook, the broker and the commands share."""
