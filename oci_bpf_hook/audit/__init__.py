"""What is put on record of each decision, and what the record says later."""
