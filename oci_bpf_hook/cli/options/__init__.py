"""What several commands share: their options, their output, and what those options mean."""
